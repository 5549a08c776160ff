"""Real environments that go through the same episodes as dreams: the PushT simulator, or a user's own.

Shapes: N episodes, C context frames, A action components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ..pusht.simulator import PushTSimulator
from ..start_frames import CONTEXT_FRAMES, StartFrames
from .observations import AGENT_SIZE, SCENE_SIZE, Observation
from .policies import imported

PUSHT = "gym_pusht/PushT-v0"


@dataclass(frozen=True)
class RealForm:
    """What a real environment has to look like.

    Attributes:
        frame_size: height and width of the frames that policies and dreams get.
        fps: frame rate.
        relative: whether the world's actions are displacements.
        positions: whether the policies' actions are positions; otherwise they are the world's own.
        state_size: number of components of the world's state; 0 if it has none.
        action_offset: as in `DreamerDynamicsConfig`.
    """

    frame_size: tuple[int, int]
    fps: float
    relative: bool
    positions: bool
    state_size: int = 0
    action_offset: int = 1


class RealEnvironment(Protocol):
    """N episodes for real. A user's own comes from a function `package.module:function` that takes a `RealForm`."""

    def reset(self, seeds: Sequence[int]) -> StartFrames:
        """Begin N episodes and return their context frames (N, C, ...) with the world's actions.

        A seed decides everything about its episode but the actions.
        """

    def observe(self) -> Observation:
        """Return what is seen now."""

    def step(self, actions: np.ndarray) -> None:
        """Execute one action of the policies (N, A)."""


def open_real(name: str, form: RealForm) -> RealEnvironment:
    """Return a real environment by name.

    Raises:
        ValueError: there is none of that name, or it does not fit the world.
    """
    if name == PUSHT:
        return RealPushTs(form)
    if ":" not in name:
        raise ValueError(f"there is no real environment {name!r}: choose {PUSHT}, or package.module:function.")
    return imported(name, "environment")(form)


class RealPushTs:
    """N simulators of PushT side by side. Scenes are known exactly; frames are drawn when they are asked for.

    A world's state is the agent's position, or that and the block's pose; the first context frames have none.

    Args:
        form: see `RealForm`.

    Raises:
        ValueError: the frames are not square, or as in `PushTSimulator`.
    """

    def __init__(self, form: RealForm):
        height, width = form.frame_size
        if height != width:
            raise ValueError(f"PushT has square frames but the world's are {height}x{width}: choose a world of PushT.")
        self.form, self._simulators = form, []
        self._make()

    def reset(self, seeds: Sequence[int]) -> StartFrames:
        """See `RealEnvironment`."""
        while len(self._simulators) < len(seeds):
            self._make()
        self._playing = self._simulators[: len(seeds)]
        starts = [simulator.reset(seed, CONTEXT_FRAMES) for simulator, seed in zip(self._playing, seeds)]
        names = ("pixel_values_videos", "actions", "action_mask")
        frames, actions, mask = (torch.cat([getattr(start, name) for start in starts]) for name in names)
        states = self.observe().states
        if states is None:
            return StartFrames(frames, actions, mask)
        known = torch.zeros(mask.shape, dtype=torch.bool)
        known[:, -1] = True
        every = torch.from_numpy(states)[:, None].expand(-1, mask.shape[1], -1) * known[..., None]
        return StartFrames(frames, actions, mask, every.contiguous(), known)

    def observe(self) -> Observation:
        """See `RealEnvironment`."""
        scene = np.array([[*simulator.agent, *simulator.block_pose] for simulator in self._playing])
        positions = np.array([simulator.target for simulator in self._playing], np.float64)
        size = self.form.state_size
        states = scene[:, :size].astype(np.float32) if size in (AGENT_SIZE, SCENE_SIZE) else None
        return Observation(
            lambda: np.stack([simulator.render() for simulator in self._playing]), states, positions, scene
        )

    def step(self, actions: np.ndarray) -> None:
        """See `RealEnvironment`."""
        for simulator, action in zip(self._playing, actions, strict=True):
            way = self.form.positions and self.form.relative
            simulator.step(action - simulator.target if way else action)

    def _make(self) -> None:
        form = self.form
        self._simulators.append(PushTSimulator(form.frame_size[0], form.relative, form.fps, form.action_offset))


__all__ = ["PUSHT", "RealEnvironment", "RealForm", "RealPushTs", "open_real"]
