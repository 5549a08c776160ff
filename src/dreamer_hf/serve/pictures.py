"""Frames as bytes."""

import base64
import json

from ..media import encode_image
from .sessions import Shown

FORMATS = ("jpeg", "png")


def pack(shown: Shown, kind: str, quality: int) -> bytes:
    """A frame for a player: length of the header (uint32, little-endian), header (JSON), picture."""
    header = {"step": shown.step, "start": shown.start, "seed": shown.seed, "seq": shown.seq}
    header["action"] = [round(float(value), 6) for value in shown.action]
    words = json.dumps(header, separators=(",", ":")).encode()
    return len(words).to_bytes(4, "little") + words + encode_image(shown.frame, kind, quality, compression=1)


def as_json(shown: Shown) -> dict:
    """A frame for a policy; the observation's data are its bytes in base64."""
    data = base64.b64encode(shown.frame.tobytes()).decode()
    observation = {"shape": list(shown.frame.shape), "dtype": "uint8", "data": data}
    action = [float(value) for value in shown.action]
    return {
        "step": shown.step,
        "start": shown.start,
        "seed": shown.seed,
        "action": action,
        "observation": observation,
    }
