"""`dreamer_onnx.json`: what an exported world is, readable without PyTorch.

Everything that a host needs besides the graphs: sizes, schedule, the meaning of actions, and the digests of the files.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..action_space import ActionSpace
from ..state_space import StateSpace

MANIFEST_NAME = "dreamer_onnx.json"
FORMAT = "dreamer-onnx"
FORMAT_VERSION = 2
"""The latest version, of worlds with a state or several cameras."""
PLAIN_VERSION = 1
"""The version of worlds of one camera without a state, which readers of version 1 can read."""


@dataclass
class GraphEntry:
    """One graph.

    Attributes:
        file: its name in the folder.
        sha256: digest of the file.
        context_length: frames that a time layer sees, the present one included; the ring holds one fewer, P.
        head_dim: h, width of a head.
        rope_theta: base of the rotary embedding.
        cache_heads: heads of the keys of each time layer, which is (B, heads, P, h).
        reach: number of past frames that can influence a frame.
        data_files: digests of files with weights next to the graph, by name.
    """

    file: str
    sha256: str
    context_length: int
    head_dim: int
    rope_theta: float
    cache_heads: list[int]
    reach: int
    data_files: dict[str, str] = field(default_factory=dict)


@dataclass
class Manifest:
    """The content of `dreamer_onnx.json`.

    Attributes:
        name: name of the world, for people.
        dtype: how the weights are stored: "float32", "float16" or "int8".
        fingerprint: SHA-256 of the config and the weights that were exported.
        fps: frame rate of the world; None if it does not know it.
        frame_size: height and width of a frame of one camera.
        latents: `num_tokens` of all cameras together, and `dim`.
        generation: `num_inference_steps`, `context_signal_level` and `num_signal_levels`.
        actions: see `actions_entry`.
        graphs: "dynamics", "decoder" and "encoder".
        starts: `file`, `count` and `context_frames` of the start latents; None without any.
        check: what the comparison with PyTorch measured after the export.
        dreamer_hf_version: version that exported it.
        state: see `state_entry`; None (the default) for a world without a state.
        cameras: names of several cameras, in the order of their latents; None (the default) for one camera.
    """

    name: str
    dtype: str
    fingerprint: str
    fps: float | None
    frame_size: list[int]
    latents: dict[str, int]
    generation: dict[str, Any]
    actions: dict[str, Any]
    graphs: dict[str, GraphEntry]
    starts: dict[str, Any] | None
    check: dict[str, Any]
    dreamer_hf_version: str
    state: dict[str, Any] | None = None
    cameras: list[str] | None = None

    @property
    def num_cameras(self) -> int:
        """V, the number of cameras."""
        return 1 if self.cameras is None else len(self.cameras)

    @property
    def format_version(self) -> int:
        """The lowest version whose readers can read it."""
        return format_version(has_state=self.state is not None, num_cameras=self.num_cameras)

    def to_json(self) -> str:
        """Return the content of the file."""
        content = {"format": FORMAT, "format_version": self.format_version} | asdict(self)
        for name in ("state", "cameras"):
            if content[name] is None:
                del content[name]
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            ValueError: it is damaged, or of a later version.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}")
            version = content["format_version"]
            if version > FORMAT_VERSION:
                raise LaterVersionError(
                    f"{path} has format version {version}, and this dreamer_hf reads up to {FORMAT_VERSION}: "
                    "install a later dreamer_hf, or export the world again."
                )
            graphs = {name: GraphEntry(**_known(GraphEntry, entry)) for name, entry in content["graphs"].items()}
            manifest = cls(**_known(cls, content) | {"graphs": graphs})
            manifest.check_values()
            return manifest
        except LaterVersionError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{path} is not the manifest of an exported world ({reason}): export it again."
            ) from error

    def check_values(self) -> None:
        """Raise a ValueError, TypeError or KeyError for values that no export writes."""
        for name in ("dynamics", "decoder", "encoder"):
            entry = self.graphs[name]
            sizes = [entry.context_length, entry.head_dim, *entry.cache_heads]
            if not all(type(size) is int and size > 0 for size in sizes) or entry.rope_theta <= 0 or entry.reach < 0:
                raise ValueError(f"impossible sizes of the graph {name}")
            for file in (entry.file, *entry.data_files):
                if Path(file).name != file:
                    raise ValueError(f"the file {file!r} lies outside the folder")
        if not all(type(size) is int and size > 0 for size in (*self.frame_size, *self.latents.values())):
            raise ValueError("impossible sizes of frames or latents")
        if self.fps is not None and not self.fps > 0:
            raise ValueError("an impossible frame rate")
        action_space(self.actions)
        state_space(self.state)
        names = self.cameras
        if names is not None and (len(names) < 2 or not all(type(name) is str for name in names)):
            raise ValueError("impossible names of cameras")
        if self.latents["num_tokens"] % self.num_cameras:
            raise ValueError("cameras that do not share the latents")
        for key in ("num_inference_steps", "context_signal_level", "num_signal_levels"):
            _ = self.generation[key]


class DamagedExportError(ValueError):
    """A file of an export is missing, or is not the one that was written."""


class LaterVersionError(ValueError):
    """The manifest is of a later version."""


def _known(kind: type, content: dict) -> dict:
    """Return the entries that are fields of a dataclass: later writers may add others."""
    names = {each.name for each in fields(kind)}
    return {key: value for key, value in content.items() if key in names}


def actions_entry(space: ActionSpace, num_classes: list[int], offset: int) -> dict[str, Any]:
    """Return an action space as the manifest keeps it.

    `low` and `high` are the limits that actions are clipped to, null for none; `range_low` and `range_high` the range
    for controls, which is always finite.

    Args:
        space: the world's actions.
        num_classes: number of classes of each component; 0 for a continuous one.
        offset: 1 if a frame goes with the action that led to it, 0 if it goes with the one recorded with it.
    """
    low, high = (space.low, space.high) if space.limits is None else space.limits
    return {
        "dim": space.size,
        "names": list(space.names),
        "units": None if space.units is None else list(space.units),
        "low": _numbers(low),
        "high": _numbers(high),
        "range_low": space.low.tolist(),
        "range_high": space.high.tolist(),
        "rest": _numbers(space.rest),
        "relative": space.relative.tolist(),
        "num_classes": list(num_classes),
        "offset": offset,
    }


def action_space(entry: dict[str, Any]) -> ActionSpace:
    """Return the action space of a manifest's entry."""
    limits = np.stack([_limits(entry["low"], -np.inf), _limits(entry["high"], np.inf)])
    space = ActionSpace(
        names=tuple(entry["names"]),
        low=np.array(entry["range_low"], np.float32),
        high=np.array(entry["range_high"], np.float32),
        relative=np.array(entry["relative"], dtype=bool),
        discrete=np.array(entry["num_classes"]) > 0,
        units=None if entry["units"] is None else tuple(entry["units"]),
        limits=limits,
    )
    parts = space.names, space.low, space.high, space.relative, space.discrete, *limits
    sizes = {len(values) for values in parts}
    if sizes != {entry["dim"]}:
        raise ValueError("action components of different numbers")
    return space


def state_entry(space: StateSpace, std: np.ndarray) -> dict[str, Any]:
    """Return the state of a world as the manifest keeps it.

    `mean` and `std` normalize it, `low` and `high` are its range in the training data.

    Args:
        space: the world's state.
        std: float32 (S,), by which the network's states are scaled.
    """
    return {
        "dim": len(space),
        "names": list(space.names),
        "units": None if space.units is None else list(space.units),
        "mean": space.mean.tolist(),
        "std": np.asarray(std).tolist(),
        "low": space.low.tolist(),
        "high": space.high.tolist(),
    }


def state_space(entry: dict[str, Any] | None) -> StateSpace:
    """Return the state space of a manifest's entry, of length 0 without one."""
    if entry is None:
        return StateSpace((), *(np.zeros(0, np.float32) for _ in range(3)))
    low, high, mean, std = (np.array(entry[key], np.float32) for key in ("low", "high", "mean", "std"))
    units = None if entry["units"] is None else tuple(entry["units"])
    space = StateSpace(tuple(entry["names"]), low, high, mean, units)
    sizes = {len(values) for values in (space.names, low, high, mean, std, units or space.names)}
    if sizes != {entry["dim"]} or not len(space) or not (std > 0).all():
        raise ValueError("state components of different numbers, or impossible statistics of the state")
    return space


def format_version(has_state: bool, num_cameras: int) -> int:
    """Return the lowest version of the format for a world."""
    return FORMAT_VERSION if has_state or num_cameras > 1 else PLAIN_VERSION


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _limits(values: list[float | None], unlimited: float) -> np.ndarray:
    return np.array([unlimited if value is None else value for value in values], np.float32)


__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "PLAIN_VERSION",
    "DamagedExportError",
    "GraphEntry",
    "Manifest",
    "action_space",
    "actions_entry",
    "file_sha256",
    "format_version",
    "state_entry",
    "state_space",
]
