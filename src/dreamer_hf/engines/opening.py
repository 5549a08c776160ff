"""Opening a world and its start frames with the engine that is asked for, or that suits this machine."""

from __future__ import annotations

from typing import Any, NamedTuple

from .world_engine import is_start


class OpenedWorld(NamedTuple):
    """A world and its start frames.

    Attributes:
        world: a `DreamerWorldModel` in eval mode, or an `OnnxWorld`.
        starts: where its dreams can begin.
        note: one line for people: the engine, and why.
    """

    world: Any
    starts: Any
    note: str


def open_world(model: str, options) -> OpenedWorld:
    """Open a world.

    Args:
        model: name of a shipped world, folder, or Hub repository.
        options: `WorldOptions`, or the `DreamOptions` of an environment.

    Raises:
        ValueError, OSError: there is no such world, or no start frames that fit it, or the options ask for something
            that the engine cannot do.
    """
    from ..loading import load_world
    from ..start_frames import load_start_frames

    world = load_world(model, options.device, options.adapter, options.int8)
    starts = read_starts_for(world, options) if options.start else load_start_frames(options.adapter or model)
    return OpenedWorld(world, starts, "Engine: PyTorch.")


def read_starts_for(world, options):
    """Return the start frames that `options.start` names, for a loaded world.

    Raises:
        ValueError, FileNotFoundError: there are none, or they do not fit the world.
    """
    if is_start(options.start):
        return options.start
    from ..start_frames import read_start_frames

    return read_start_frames(options.start, world.config, options.image_key, options.action_key)


__all__ = ["OpenedWorld", "open_world", "read_starts_for"]
