"""The record of a training run: one JSON object a line."""

import json
import math
import os
from pathlib import Path


class MetricsLog:
    """Appends to `metrics.jsonl`. A resumed run drops the lines that the killed one wrote after its checkpoint."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def append(self, step: int, values: dict[str, float]) -> None:
        """Adds one line; values that are not finite (a term that no row of the batch had) are left out."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")

    def truncate(self, step: int) -> None:
        """Keeps the lines up to and including `step`, whole ones only."""
        if not self.path.exists():
            return
        kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(f"{line}\n" for line in kept))
        os.replace(temporary, self.path)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):
        return math.inf  # the line that was being written when the kill came
