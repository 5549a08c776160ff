"""An `OnnxWorld` as dreams use it, without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..onnx import OnnxRollout, OnnxStarts, OnnxWorld
from ..seeded_noise import SeededNoise
from ..state_space import StateSpace
from ..threads import ThreadChoice, choose_threads_for
from .world_engine import as_numpy, other_noise

DEFAULT_FPS = 10.0
"""Frame rate of worlds that do not know it, as in `DreamerDynamicsConfig`."""
NO_STATE = StateSpace((), *(np.zeros(0, np.float32) for _ in range(3)))
"""Worlds with a state are not exported."""


class OnnxEngine:
    """ONNX Runtime's form of `WorldEngine`.

    Args:
        world: the exported world.
    """

    name, can_compile = "onnx", False

    def __init__(self, world: OnnxWorld):
        self.world = world
        self.fps, self.frame_size = world.fps or DEFAULT_FPS, world.frame_size
        self.space, self.limits = world.space, world.space.limits
        self.state_space = NO_STATE
        self.action_offset = world.manifest.actions["offset"]

    def check_num_inference_steps(self, number: int | None) -> None:
        """See `WorldEngine`."""
        self.world.schedule(number)

    def own_starts(self, starts) -> OnnxStarts:
        """See `WorldEngine`."""
        if not isinstance(starts, OnnxStarts):
            starts = OnnxStarts(*map(as_numpy, (starts.pixel_values_videos, starts.actions, starts.action_mask)))
        size, width = starts.pixel_values_videos.shape[-2:], starts.actions.shape[-1]
        if size != self.frame_size:
            raise ValueError(
                f"the start frames are {size[0]}x{size[1]} pixels but the world dreams "
                f"{self.frame_size[0]}x{self.frame_size[1]}: resize them."
            )
        if width != self.space.size:
            raise ValueError(
                f"the start frames come with actions of width {width} but the world takes {self.space.size}: choose "
                "data of the robot that the world was trained on."
            )
        return starts

    def make_starts(self, frames: np.ndarray, actions: np.ndarray, action_mask: np.ndarray) -> OnnxStarts:
        """See `WorldEngine`."""
        return self.own_starts(OnnxStarts(frames, actions, action_mask))

    def start_rollout(
        self, starts: OnnxStarts, num_inference_steps: int | None, generator: Sequence[SeededNoise]
    ) -> tuple[OnnxRollout, np.ndarray]:
        """See `WorldEngine`."""
        rollout = self.world.start_rollout(starts, num_inference_steps=num_inference_steps, generator=generator)
        return rollout, rollout.context.latents

    def join(self, rollouts: Sequence[OnnxRollout]) -> OnnxRollout:
        """See `WorldEngine`."""
        return OnnxRollout.join(rollouts)

    def tile(self, frames: np.ndarray) -> np.ndarray:
        """See `WorldEngine`. Worlds of several cameras are not exported."""
        return frames

    def stack(self, latents: Sequence[np.ndarray]) -> np.ndarray:
        """See `WorldEngine`."""
        return np.stack(latents)

    def twin(self, rollout: OnnxRollout) -> OnnxRollout:
        """See `WorldEngine`."""
        twin = rollout.clone()
        twin.generator = other_noise(twin.generator, twin.batch_size)
        return twin

    def encode_frames(self, frames: np.ndarray) -> np.ndarray:
        """See `WorldEngine`."""
        return self.world.encode(frames[:, None])[:, 0]

    def choose_threads(self, work: Callable[[], object], threads: int | None) -> ThreadChoice | None:
        """See `WorldEngine`."""
        return choose_threads_for(work, self.world.threads, self.world.set_threads, threads)


__all__ = ["OnnxEngine"]
