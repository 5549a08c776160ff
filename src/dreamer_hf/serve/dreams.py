"""Many dreams of one world, stepped together: each has its own start, noise and clock.

H, W pixels, A action dimensions, N_z latent tokens, d_z latent channels.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..action_space import ActionSpace
from ..media import to_uint8
from ..modeling_dreamer_world import DreamerWorldModel
from ..rollout import DreamerRollout
from ..rollout_noise import draw_noise
from ..start_frames import StartFrames


class Dream:
    """One row of some batch, and what makes it reproducible. Made and stepped by `Dreams`.

    Attributes:
        frame: uint8 (H, W, 3) RGB, the frame dreamt last.
        action: float32 (A,), the raw action that led to it.
        step: frames dreamt since the start frames.
        start: which of the starts it began from.
        seed: of its noise.
    """

    def __init__(self, start: int, seed: int, frame: np.ndarray, action: np.ndarray):
        self.start, self.seed, self.step = start, seed, 0
        self.frame, self.action = frame, action
        # On the CPU a seed gives the same noise whatever the world runs on.
        self.generator = torch.Generator().manual_seed(seed)
        self.batch: _Batch | None = None
        self.row = 0


class _Batch:
    """A rollout and whose dreams its rows are (a row of a dream that went elsewhere is dead weight)."""

    def __init__(self, rollout: DreamerRollout, dreams: Sequence[Dream]):
        self.rollout, self.dreams = rollout, list(dreams)
        for row, dream in enumerate(self.dreams):
            dream.batch, dream.row = self, row

    def is_exactly(self, dreams: Sequence[Dream]) -> bool:
        return len(self.dreams) == len(dreams) and all(mine is dream for mine, dream in zip(self.dreams, dreams))


class Dreams:
    """Begins dreams and steps any set of them as one batch; those left out hold still.

    As long as the same dreams step together, their batch stays as it is; when the set changes, rows are copied.
    A dream gives the frames that a rollout of its own would, to rounding, whoever else dreams.

    Args:
        world: in eval mode.
        starts: where dreams begin; must fit the world.
        num_inference_steps: denoising passes a frame.

    Raises:
        ValueError: starts that do not fit the world, or steps that are not on its grid.
    """

    def __init__(self, world: DreamerWorldModel, starts: StartFrames, num_inference_steps: int = 4):
        starts.check_fits(world.config)
        self.world, self.starts, self.num_inference_steps = world, starts, num_inference_steps
        self.space = ActionSpace.from_config(world.config.dynamics_config)
        self.begin(0, 0)  # refuses what cannot be dreamt before anybody is let in

    def begin(self, start: int, seed: int) -> Dream:
        """A new dream at one of the starts: the one that `world.start_rollout` with a generator of this seed gives."""
        given = self.starts[start].to(self.world.device)
        frame = given.pixel_values_videos[0, -1].permute(1, 2, 0).cpu().numpy()
        action = given.actions[0, -1].cpu().numpy() if given.action_mask[0, -1] else self.space.rest
        dream = Dream(start, seed, frame, action)
        rollout = self.world.start_rollout(
            (given.pixel_values_videos / 255).to(self.world.dtype),
            given.actions,
            given.action_mask,
            num_inference_steps=self.num_inference_steps,
            generator=dream.generator,
        )
        _Batch(rollout, [dream])
        return dream

    def step(self, dreams: Sequence[Dream], actions: Sequence[np.ndarray]) -> None:
        """Dreams one frame in each of the given dreams, with its raw action (A,), which must be in the space."""
        rollout = self._batch_of(dreams).rollout
        noise = [self._noise(dream) for dream in dreams]
        start_noise, commit_noise = (torch.cat(column).to(self.world.device) for column in zip(*noise))
        raw = torch.from_numpy(np.stack(actions)).to(self.world.device)
        pixels = rollout.step(raw, start_noise=start_noise, commit_noise=commit_noise).pixel_values
        for dream, frame, action in zip(dreams, to_uint8(pixels), actions):
            dream.frame, dream.action, dream.step = frame, action, dream.step + 1

    def end(self, dream: Dream) -> None:
        """Gives a dream's row up; it must not be stepped any more."""
        dream.batch = None

    def _batch_of(self, dreams: Sequence[Dream]) -> _Batch:
        if dreams[0].batch.is_exactly(dreams):
            return dreams[0].batch
        old = {id(dream.batch): dream.batch for dream in dreams}.values()
        joined = _Batch(DreamerRollout.join([dream.batch.rollout.clone(rows=[dream.row]) for dream in dreams]), dreams)
        for batch in old:  # who stays behind gets a place of its own, so that the old batch can be freed
            for row, dream in enumerate(batch.dreams):
                if dream.batch is batch:
                    _Batch(batch.rollout.clone(rows=[row]), [dream])
        return joined

    def _noise(self, dream: Dream) -> tuple[torch.Tensor, torch.Tensor]:
        """Start and commit noise of a dream's next frame, each (1, N_z, d_z), in a rollout's own order."""
        config = self.world.config.dynamics_config
        shape = (1, config.num_latent_tokens, config.latent_dim)
        cpu = torch.device("cpu")
        return draw_noise(shape, dream.generator, cpu), draw_noise(shape, dream.generator, cpu)
