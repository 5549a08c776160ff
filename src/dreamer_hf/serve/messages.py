"""What clients may say, read with suspicion: anything else is a `ValueError` of one sentence for the client.

A action dimensions.
"""

import json
from dataclasses import dataclass

import numpy as np

from ..action_space import ActionSpace
from ..play.controls import fit_axes

MAX_SEED = 2**63 - 1
KINDS = ("hand", "action", "pause", "step", "reset", "record")


@dataclass(frozen=True)
class Hand:
    """What a player's hand does until the next message: axes of a device, or a raw action.

    Attributes:
        axes: float32 (A,) in [-1, 1].
        pointer: whether the axes are a place in the picture rather than deflections.
        action: float32 (A,), raw, instead of axes; or None.
        seq: the client's number of this message, sent back with the frames that it led to.
    """

    axes: np.ndarray
    pointer: bool = False
    action: np.ndarray | None = None
    seq: int = 0


@dataclass(frozen=True)
class Pause:
    paused: bool


@dataclass(frozen=True)
class Step:
    """One frame, then pause."""


@dataclass(frozen=True)
class Record:
    on: bool


@dataclass(frozen=True)
class Beginning:
    """Where a dream shall begin; None: the server chooses."""

    start: int | None = None
    seed: int | None = None


def read_json(text: str | bytes) -> dict:
    """A JSON object; refuses NaN and Infinity, which are no JSON."""

    def refuse(name: str):
        raise ValueError(f"{name} is not a number of JSON: send finite numbers.")

    try:
        value = json.loads(text, parse_constant=refuse)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("this is not JSON: send one JSON object.") from error
    if not isinstance(value, dict):
        raise ValueError('this is not a JSON object: send one, such as {"type": "pause", "paused": true}.')
    return value


def read_message(text: str | bytes, space: ActionSpace, num_starts: int) -> Hand | Pause | Step | Record | Beginning:
    """One message of a player.

    Raises:
        ValueError: malformed, of unknown kind, or not fit for this world.
    """
    value = read_json(text)
    kind = value.get("type")
    if kind == "hand":
        axes = _numbers(value, "axes")
        if len(axes) > space.size:
            raise ValueError(f"axes has {len(axes)} numbers: this world takes {space.size} at most.")
        return Hand(np.clip(fit_axes(axes, space.size), -1, 1), _flag(value, "pointer", False), None, _seq(value))
    if kind == "action":
        return Hand(np.zeros(space.size, np.float32), action=read_action(value, space), seq=_seq(value))
    if kind == "pause":
        return Pause(_flag(value, "paused", True))
    if kind == "step":
        return Step()
    if kind == "reset":
        return read_beginning(value, num_starts)
    if kind == "record":
        return Record(_flag(value, "on", True))
    raise ValueError(f"unknown message type {kind!r:.40}: send one of {', '.join(KINDS)}.")


def read_action(value: dict, space: ActionSpace) -> np.ndarray:
    """The raw action of a message, float32 (A,), moved to the nearest one inside the space.

    Raises:
        ValueError: missing, of another width, or not finite.
    """
    action = _numbers(value, "action")
    if len(action) != space.size:
        raise ValueError(
            f"action has {len(action)} numbers: this world takes {space.size} ({', '.join(space.names)})."
        )
    return space.valid(action)


def read_beginning(value: dict, num_starts: int) -> Beginning:
    """Start and seed of a message, both optional.

    Raises:
        ValueError: not whole numbers in range.
    """
    return Beginning(_whole(value, "start", num_starts - 1), _whole(value, "seed", MAX_SEED))


def _numbers(value: dict, name: str) -> np.ndarray:
    numbers = value.get(name)
    if not isinstance(numbers, list) or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(f"{name} must be a list of numbers.")
    try:
        with np.errstate(over="ignore"):
            array = np.array(numbers, dtype=np.float32)
    except OverflowError:
        array = np.array([np.inf])
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds a value that is not a finite number: send finite numbers.")
    return array


def _whole(value: dict, name: str, largest: int) -> int | None:
    number = value.get(name)
    if number is None:
        return None
    if type(number) is not int or not 0 <= number <= largest:
        raise ValueError(f"{name} must be a whole number from 0 to {largest}.")
    return number


def _flag(value: dict, name: str, default: bool) -> bool:
    flag = value.get(name, default)
    if not isinstance(flag, bool):
        raise ValueError(f"{name} must be true or false.")
    return flag


def _seq(value: dict) -> int:
    return _whole(value, "seq", 2**53) or 0
