"""What was played, kept in a folder: an interrupted ranking resumes, and real episodes serve several worlds."""

import hashlib
import json
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from ..data.files import replacing
from ..worlds import resolve_model
from .policies import PolicyName
from .rank_units import REAL, RankUnit

PLAYED_OPTIONS = ("real", "score", "steps", "policy_actions")
"""Options that decide what a unit plays, in dreams or for real;"""
DREAM_OPTIONS = ("world", "start", "other_actions", "num_inference_steps", "engine", "device")
"""and those that matter to dreams only. Real episodes depend on the world only in the form of their frames."""


def cached(
    units: Iterable[RankUnit], folder: str | None, play: Callable[[Iterable[RankUnit]], Iterable[dict]]
) -> Iterator[tuple[RankUnit, dict]]:
    """Yield units with their results: those that the folder has first, then those that are played now.

    Args:
        units: what is wanted.
        folder: where results are kept; None for nowhere.
        play: plays units, and gives their results in this order.
    """
    missing = []
    for unit in units:
        path = _path(folder, unit)
        result = _read(path)
        if result is None:
            missing.append(unit)
        else:
            yield unit, result
    for unit, result in zip(missing, play(missing), strict=True):
        path = _path(folder, unit)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                _write(temporary, result)
        yield unit, result


def unit_key(unit: RankUnit) -> str:
    """Return a digest of everything that decides what a unit plays, the files of its policy and world included."""
    names = PLAYED_OPTIONS if unit.place == REAL else PLAYED_OPTIONS + DREAM_OPTIONS
    content = {name: getattr(unit.options, name) for name in names}
    content |= {"policy": unit.policy, "seeds": unit.seeds, "place": unit.place}
    content["policy files"] = _files(os.path.abspath(PolicyName.parse(unit.policy).place))
    content["world files"] = None if unit.place == REAL else _files(os.path.abspath(resolve_model(unit.options.world)))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


@cache
def _files(place: str) -> dict[str, str] | None:
    """Return the digests of the files of a folder by name; None if there is no such folder."""
    if not os.path.isdir(place):
        return None
    files = sorted(path for path in Path(place).rglob("*") if path.is_file())
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _path(folder: str | None, unit: RankUnit) -> Path | None:
    return None if folder is None else Path(folder) / f"{unit_key(unit)}.npz"


def _write(path: Path, result: dict) -> None:
    arrays = {f"{part}/{name}": array for part in ("rewards", "successes") for name, array in result[part].items()}
    if result["trust"] is not None:
        arrays["trust"] = result["trust"]
    with open(path, "wb") as file:
        np.savez_compressed(file, num_clipped=result["num_clipped"], **arrays)


def _read(path: Path | None) -> dict | None:
    """Return a kept result; None if there is none, or if it is damaged and has to be played again."""
    if path is None or not path.is_file():
        return None
    try:
        with np.load(path) as file:
            arrays = dict(file)
        parts = {
            part: {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{part}/")}
            for part in ("rewards", "successes")
        }
        return {**parts, "trust": arrays.get("trust"), "num_clipped": int(arrays["num_clipped"])}
    except (OSError, ValueError, KeyError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error):
        return None


__all__ = ["cached", "unit_key"]
