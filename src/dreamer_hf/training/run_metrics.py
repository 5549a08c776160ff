"""What a run records about itself: one JSON object per line, and how fast it is."""

import json
import math
import resource
import sys
import time
from functools import cache
from pathlib import Path

import torch

from ..data.files import replacing

MACHINE_METRICS = ("frames_per_second", "tflops_per_second", "mfu", "memory_gib")
"""Metrics that depend on the machine and the moment; all others of a run repeat bit for bit."""
PEAK_SECONDS = 0.2
"""Time that measuring the peak of matrix products may take."""


class MetricsLog:
    """Appends to `metrics.jsonl`. A resumed run drops the lines that the killed one wrote after its checkpoint."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def append(self, step: int, values: dict[str, float]) -> None:
        """Add one line, without the values that are not finite (a loss term that no row of the batch had)."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")

    def read(self) -> list[dict[str, float]]:
        """Return the lines; the last one is left out if a kill cut it off."""
        if not self.path.exists():
            return []
        return [line for line in map(_parse, self.path.read_text().splitlines()) if line is not None]

    def truncate(self, step: int) -> None:
        """Keep the lines up to and including `step`."""
        if self.path.exists():
            kept = [line for line in self.read() if line["step"] <= step]
            with replacing(self.path) as temporary:
                temporary.write_text("".join(f"{json.dumps(line)}\n" for line in kept))


def _parse(line: str) -> dict[str, float] | None:
    try:
        values = json.loads(line)
        return values if isinstance(values["step"], int) else None
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


class Speed:
    """Turns the work of a step and its duration into metrics.

    Args:
        device: where this process trains.
        dtype: of the matrix products.
        num_processes: number of processes, which all do the same amount of work.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, num_processes: int):
        self.device, self.num_processes = device, num_processes
        self.peak = matmul_peak(device, dtype)

    def metrics(self, frames: int, flops: float, seconds: float) -> dict[str, float]:
        """Return `MACHINE_METRICS`: frames/s and TFLOP/s of all processes, the share of the measured peak that the
        model's operations reach (MFU), and the peak memory of this process.

        Args:
            frames: frames of the step in this process.
            flops: operations of the step in this process.
            seconds: duration of the step.
        """
        return {
            "frames_per_second": frames * self.num_processes / seconds,
            "tflops_per_second": flops * self.num_processes / seconds / 1e12,
            "mfu": flops / seconds / self.peak,
            "memory_gib": peak_memory(self.device) / 2**30,
        }


@cache
def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations per second of a large matrix product on this machine, the best of a few measurements."""
    size = 4096 if device.type == "cuda" else 512
    left, right = (torch.full((size, size), 0.5, device=device, dtype=dtype) for _ in range(2))
    best, started = math.inf, time.perf_counter()
    while best == math.inf or time.perf_counter() - started < PEAK_SECONDS:
        began = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def peak_memory(device: torch.device) -> int:
    """Return the largest number of bytes that this process has used so far, on the GPU if it trains on one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def format_duration(seconds: float) -> str:
    """Return a duration for people, such as "1 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
