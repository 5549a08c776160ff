"""Which values the keys of a shard folder's `metadata.json` can have."""

import math
from collections.abc import Callable
from typing import Any

MAX_EPISODES = 1 << 30


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list_of(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_valid, value))


def _or_none(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_valid(value)


def _are_statistics(value: Any) -> bool:
    if not isinstance(value, dict) or not all(_is_list_of(_is_finite)(value.get(key)) for key in ("mean", "std")):
        return False
    ranges = [value[key] for key in ("min", "max") if key in value]
    return (
        min(value["std"], default=0) >= 0
        and all(_is_list_of(_is_finite)(values) for values in ranges)
        and _is_count(value.get("count", 0))
    )


def _are_cameras(value: Any) -> bool:
    return _is_list_of(_is_text)(value) and len(set(value)) == len(value) > 1


def _are_arguments(value: Any) -> bool:
    dims = _or_none(_is_list_of(_is_count))
    return isinstance(value, dict) and all(
        dims(value.get(key)) for key in ("absolute_action_dims", "displacement_action_dims")
    )


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_shards": (_is_count, "a number of shards"),
    "total_episodes": (lambda value: _is_count(value) and value < MAX_EPISODES, "a number of episodes"),
    "relative_actions": (_or_none(lambda value: isinstance(value, bool)), "true or false"),
    "relative_mode": (_or_none(_is_text), "text"),
    "format_version": (_or_none(_is_count), "a number"),
    "fps": (_or_none(lambda value: _is_finite(value) and value > 0), "a positive number"),
    "color_order": (lambda value: value in (None, "rgb", "bgr"), "rgb or bgr"),
    "action_names": (_or_none(_is_list_of(_is_text)), "a list of names"),
    "action_units": (_or_none(_is_list_of(_is_text)), "a list of units"),
    "action_stats": (_or_none(_are_statistics), "finite lists of mean, std, min and max"),
    "action_offset": (lambda value: value in (None, 0) and value is not False, "0 (readers align)"),
    "image_key": (_or_none(_is_text), "text"),
    "action_key": (_or_none(_is_text), "text"),
    "source": (_or_none(lambda value: isinstance(value, dict | str)), "an object"),
    "conversion": (_or_none(_are_arguments), "the arguments of a conversion"),
    "frames_per_shard": (_or_none(_is_list_of(_is_count)), "a list of numbers"),
    "tokenizer_fingerprint": (_or_none(_is_text), "text"),
    "state_names": (_or_none(_is_list_of(_is_text)), "a list of names"),
    "state_units": (_or_none(_is_list_of(_is_text)), "a list of units"),
    "state_stats": (_or_none(_are_statistics), "finite lists of mean, std, min and max"),
    "state_key": (_or_none(_is_text), "text"),
    "camera_names": (_or_none(_are_cameras), "two or more different names"),
    "reward_names": (_or_none(lambda names: _is_list_of(_is_text)(names) and len(names) > 0), "a list of names"),
    "reward_key": (_or_none(_is_text), "text"),
}
"""Keys of `metadata.json`: which values are possible, and how to call them."""


__all__ = ["CHECKS", "MAX_EPISODES"]
