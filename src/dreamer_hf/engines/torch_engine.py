"""A `DreamerWorldModel` as dreams use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..action_space import ActionSpace
from ..camera_views import encode_cameras, tile_cameras
from ..frame_inputs import action_limits
from ..latent_rollout import DreamerLatentRollout
from ..modeling_dreamer_world import DreamerWorldModel
from ..rollout import DreamerRollout
from ..seeded_noise import SeededNoise
from ..start_frames import StartFrames
from ..state_space import StateSpace
from ..threads import ThreadChoice, choose_threads
from .world_engine import as_numpy, other_noise


class TorchEngine:
    """PyTorch's form of `WorldEngine`.

    Args:
        world: the model, in eval mode.
    """

    name, can_compile = "torch", True

    def __init__(self, world: DreamerWorldModel):
        self.world = world
        config = world.config.dynamics_config
        self.fps, self.action_offset = config.fps, config.action_offset
        self.camera_names = config.camera_names if config.num_cameras > 1 else None
        height, width = world.config.tokenizer_config.frame_size
        self.frame_size, self.state_space = (height, width * config.num_cameras), StateSpace.from_config(config)
        self.space, self.limits = ActionSpace.from_config(config), action_limits(config).numpy()

    def check_num_inference_steps(self, number: int | None) -> None:
        """See `WorldEngine`."""
        self.world.rollout_schedule(number)

    def own_starts(self, starts) -> StartFrames:
        """See `WorldEngine`."""
        if not isinstance(starts, StartFrames):
            given = starts.pixel_values_videos, starts.actions, starts.action_mask, starts.states, starts.state_mask
            starts = _from_numpy(*given)
        starts.check_fits(self.world.config)
        return starts

    def make_starts(self, frames, actions, action_mask, states=None, state_mask=None) -> StartFrames:
        """See `WorldEngine`."""
        return self.own_starts(_from_numpy(frames, actions, action_mask, states, state_mask))

    def start_rollout(
        self, starts: StartFrames, num_inference_steps: int | None, generator: Sequence[SeededNoise]
    ) -> tuple[DreamerRollout, torch.Tensor]:
        """See `WorldEngine`."""
        rollout = self.world.start_rollout(starts, num_inference_steps=num_inference_steps, generator=generator)
        return rollout, rollout.latent_rollout.context.latents

    def join(self, rollouts: Sequence[DreamerRollout]) -> DreamerRollout:
        """See `WorldEngine`."""
        return DreamerRollout.join(rollouts)

    def tile(self, frames: torch.Tensor) -> torch.Tensor:
        """See `WorldEngine`."""
        return tile_cameras(frames[:, None])[:, 0]

    def stack(self, latents: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `WorldEngine`."""
        return torch.stack(list(latents))

    def twin(self, rollout: DreamerRollout) -> DreamerLatentRollout:
        """See `WorldEngine`. Its frames are not decoded."""
        twin = rollout.latent_rollout.clone()
        twin.generator = other_noise(twin.generator, twin.batch_size)
        return twin

    @torch.no_grad()
    def encode_frames(self, frames: torch.Tensor) -> np.ndarray:
        """See `WorldEngine`."""
        return as_numpy(encode_cameras(self.world.tokenizer, frames[:, None]).latents[:, 0])

    def choose_threads(self, work: Callable[[], object], threads: int | None) -> ThreadChoice | None:
        """See `WorldEngine`. On a GPU nothing is measured."""
        if threads is None and self.world.device.type != "cpu":
            return None
        return choose_threads(work, threads)


def _from_numpy(*arrays: np.ndarray | None) -> StartFrames:
    return StartFrames(*(None if values is None else torch.from_numpy(np.array(values)) for values in arrays))


__all__ = ["TorchEngine"]
