"""The wire format: JSON from clients, checked with suspicion; frames to clients.

Whatever a client sends that is not described here raises a `ValueError` with one sentence for the client.

Shapes: A action components, S state components, H, W pixels.
"""

import base64
import json
from dataclasses import dataclass

import numpy as np

from ..action_space import ActionSpace
from ..media import encode_image
from ..play.controls import fit_axes
from ..seeded_noise import MAX_SEED
from .sessions import Input, SessionFrame, StartRequest

IMAGE_FORMATS = ("jpeg", "png")
KINDS = ("input", "action", "pause", "step", "reset", "record")
MAX_SEQ = 2**53  # the largest integer that JavaScript counts to exactly


@dataclass(frozen=True)
class Pause:
    """Stop or continue."""

    paused: bool


@dataclass(frozen=True)
class Step:
    """Dream one frame, then pause."""


@dataclass(frozen=True)
class Record:
    """Start or stop recording."""

    on: bool


def read_json(text: str | bytes) -> dict:
    """Return a JSON object. NaN and Infinity are refused: they are not JSON."""

    def refuse(name: str):
        raise ValueError(f"{name} is not a number of JSON: send finite numbers.")

    try:
        value = json.loads(text, parse_constant=refuse)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("this is not JSON: send one JSON object.") from error
    if not isinstance(value, dict):
        raise ValueError('this is not a JSON object: send one, such as {"type": "pause", "paused": true}.')
    return value


def read_message(
    text: str | bytes, space: ActionSpace, num_starts: int
) -> Input | Pause | Step | Record | StartRequest:
    """Return a player's message.

    Raises:
        ValueError: it is malformed, of an unknown type, or does not fit this world.
    """
    value = read_json(text)
    kind = value.get("type")
    if kind == "input":
        axes = _numbers(value, "axes")
        if len(axes) > space.size:
            raise ValueError(f"axes has {len(axes)} numbers: this world takes {space.size} at most.")
        return Input(np.clip(fit_axes(axes, space.size), -1, 1), _flag(value, "pointer", False), seq=_seq(value))
    if kind == "action":
        return Input(np.zeros(space.size, np.float32), action=read_action(value, space), seq=_seq(value))
    if kind == "pause":
        return Pause(_flag(value, "paused", True))
    if kind == "step":
        return Step()
    if kind == "reset":
        return read_start_request(value, num_starts)
    if kind == "record":
        return Record(_flag(value, "on", True))
    raise ValueError(f"unknown message type {kind!r:.40}: send one of {', '.join(KINDS)}.")


def read_action(value: dict, space: ActionSpace) -> np.ndarray:
    """Return the raw action of a message, float32 (A,).

    Raises:
        ValueError: it is missing, of another width, or not finite.
    """
    action = _numbers(value, "action")
    if len(action) != space.size:
        raise ValueError(
            f"action has {len(action)} numbers: this world takes {space.size} ({', '.join(space.names)})."
        )
    return action


def read_start_request(value: dict, num_starts: int) -> StartRequest:
    """Return the start and the seed of a message, both optional.

    Raises:
        ValueError: one of them is not an integer in range.
    """
    return StartRequest(_integer(value, "start", num_starts - 1), _integer(value, "seed", MAX_SEED))


def pack_frame(shown: SessionFrame, image_format: str, quality: int) -> bytes:
    """Return a frame for a player: length of the header (uint32, little-endian), header (JSON), image file."""
    header = {"step": shown.step, "start": shown.start, "seed": shown.seed, "seq": shown.seq}
    header["action"] = [round(float(value), 6) for value in shown.action]
    if shown.state is not None:
        header["state"] = _state(shown.state)
    if shown.trust is not None:
        header["trust"] = round(shown.trust, 4)
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(4, "little") + text + encode_image(shown.frame, image_format, quality, compression=1)


def frame_as_json(shown: SessionFrame) -> dict:
    """Return a frame for a policy; the data of the observation are its bytes in base64.

    A world with a state has `state`, too, and a server that knows the trust of its frames has `trust`.
    """
    data = base64.b64encode(shown.frame.tobytes()).decode()
    further = {} if shown.state is None else {"state": _state(shown.state)}
    if shown.trust is not None:
        further["trust"] = round(shown.trust, 4)
    return {
        "step": shown.step,
        "start": shown.start,
        "seed": shown.seed,
        "action": [float(value) for value in shown.action],
        "observation": {"shape": list(shown.frame.shape), "dtype": "uint8", "data": data},
        **further,
    }


def _state(state: np.ndarray) -> list[float | None]:
    """Return a state (S,) for JSON, which has no NaN and no infinity: null where a dream has lost its numbers."""
    return [float(f"{value:.8g}") if np.isfinite(value) else None for value in state]


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


def _integer(value: dict, name: str, largest: int) -> int | None:
    number = value.get(name)
    if number is None:
        return None
    if type(number) is not int or not 0 <= number <= largest:
        raise ValueError(f"{name} must be an integer from 0 to {largest}.")
    return number


def _flag(value: dict, name: str, default: bool) -> bool:
    flag = value.get(name, default)
    if not isinstance(flag, bool):
        raise ValueError(f"{name} must be true or false.")
    return flag


def _seq(value: dict) -> int:
    return _integer(value, "seq", MAX_SEQ) or 0
