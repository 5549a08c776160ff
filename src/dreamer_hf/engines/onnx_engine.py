"""An `OnnxWorld` as dreams use it, without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..onnx import OnnxRollout, OnnxStarts, OnnxWorld
from ..seeded_noise import SeededNoise
from ..start_sizes import StartSizes
from ..threads import ThreadChoice, choose_threads_for
from .world_engine import as_numpy, other_noise

DEFAULT_FPS = 10.0
"""Frame rate of worlds that do not know it, as in `DreamerDynamicsConfig`."""


class OnnxEngine:
    """ONNX Runtime's form of `WorldEngine`.

    Args:
        world: the exported world.
    """

    name, can_compile = "onnx", False

    def __init__(self, world: OnnxWorld):
        self.world = world
        self.fps, self.camera_names = world.fps or DEFAULT_FPS, world.camera_names
        height, width = world.frame_size
        self.frame_size = (height, width * world.num_cameras)
        self.space, self.limits = world.space, world.space.limits
        self.state_space = world.state_space
        self.action_offset = world.manifest.actions["offset"]

    def check_num_inference_steps(self, number: int | None) -> None:
        """See `WorldEngine`."""
        self.world.schedule(number)

    def own_starts(self, starts) -> OnnxStarts:
        """See `WorldEngine`."""
        if not isinstance(starts, OnnxStarts):
            given = starts.pixel_values_videos, starts.actions, starts.action_mask, starts.states, starts.state_mask
            frames, actions, mask, *states = (None if part is None else as_numpy(part) for part in given)
            starts = OnnxStarts(frames, actions, mask, None, *states)
        world = self.world
        names, size = self.state_space.names, len(self.state_space)
        StartSizes(world.frame_size, self.space.size, world.camera_names, size, names).check(starts)
        return starts

    def make_starts(self, frames, actions, action_mask, states=None, state_mask=None) -> OnnxStarts:
        """See `WorldEngine`."""
        return self.own_starts(OnnxStarts(frames, actions, action_mask, None, states, state_mask))

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
        """See `WorldEngine`."""
        if self.camera_names is None:
            return frames
        return np.concatenate(list(np.moveaxis(frames, 1, 0)), axis=-1)

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
