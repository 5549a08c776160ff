"""The file `evaluation.json`: every figure of an evaluation at every step. Tables, plots and cards are made from
it."""

import json
from pathlib import Path

import numpy as np

from ..data import ShardDataset
from ..data.files import replacing
from ..modeling_dreamer_world import DreamerWorldModel
from .bootstrap import Bootstrap
from .evaluation_options import Protocol
from .figures import compute_figures, round_number
from .frechet import frechet_by_band
from .measurements import Measurements
from .open_loop import OTHERS, REAL

EVALUATION_NAME = "evaluation.json"
FORMAT_VERSION = 1
ZEROED_NOTES = {
    (True,): "Actions zeroed: all components are relative and are set to 0 in the data's units (no change).",
    (False,): "Actions zeroed: all components are absolute and keep their last value in the context (no change).",
    (
        False,
        True,
    ): "Actions zeroed: relative components are set to 0 in the data's units, absolute ones keep their last "
    "value in the context (no change).",
}
"""By the kinds of components that the actions have: whether they are relative."""


def make_report(
    world: DreamerWorldModel, data: ShardDataset, protocol: Protocol, measurements: Measurements, notes: list[str] = ()
) -> dict:
    """Return the contents of `evaluation.json`; docs/evaluation.md lists the keys. It names no path of this machine.

    Args:
        world, data, protocol: what was measured.
        measurements: the result of `measure_world`.
        notes: sentences to add to the notes.
    """
    frechet = _frechet(measurements.features)
    return {
        "format_version": FORMAT_VERSION,
        "world": {
            "tokenizer_fingerprint": world.tokenizer.fingerprint(),
            "parameters": world.num_parameters(),
            "dtype": str(world.dtype).removeprefix("torch."),
        },
        "data": {
            "source": (data.metadata.source or {}).get("repo_id"),
            "num_episodes": measurements.num_episodes,
            "fps": data.fps,
            "image_size": list(data.image_size),
        },
        "protocol": {
            "num_context_frames": protocol.num_context_frames,
            "num_dream_frames": protocol.num_dream_frames,
            "batch_size": protocol.batch_size,
            "seed": protocol.seed,
            "relative_action_components": measurements.is_relative.tolist(),
        },
        "notes": [*notes, *_notes(measurements, has_frechet=any(frechet.values()))],
        "frechet": frechet,
        "figures": compute_figures(measurements.values, Bootstrap(measurements.num_episodes, protocol.seed)),
    }


def _frechet(features: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Return the Fréchet distances of all candidates to the real frames, by band of steps."""
    bands = {name: frechet_by_band(ours, features[REAL]) for name, ours in features.items() if name != REAL}
    return {name: {band: round_number(each) for band, each in distances.items()} for name, distances in bands.items()}


def _notes(measurements: Measurements, has_frechet: bool) -> list[str]:
    """Return what zeroed actions are, and which metrics are missing and why."""
    values = measurements.values
    notes = [ZEROED_NOTES[tuple(sorted(set(measurements.is_relative.tolist())))]]
    if OTHERS not in values["mse"]:
        notes.append("One episode only: no other one to take actions from.")
    if "lpips" not in values:
        notes.append("LPIPS was not measured: not asked for, or its weights are not on the machine that evaluated.")
    if "agent_error" not in values:
        notes.append("No positions were measured: these are not frames of PushT.")
    if not has_frechet:
        notes.append("No Fréchet distance: fewer frames than features.")
    return notes


def write_report(path: Path, report: dict) -> None:
    """Write `evaluation.json`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_report(path: Path) -> dict:
    """Read `evaluation.json`.

    Raises:
        ValueError: the file is damaged or of another version.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: evaluate the world again.") from error
    version = report.get("format_version") if isinstance(report, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has version {version}, this package reads {FORMAT_VERSION}: evaluate the world again."
        )
    return report


__all__ = ["EVALUATION_NAME", "make_report", "read_report", "write_report"]
