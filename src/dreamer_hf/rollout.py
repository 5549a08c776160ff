"""Rollouts in pixels: a latent rollout, and the decoder with its cache.

Shapes: B rows, C context frames, H, W pixels, N_z latent tokens, d_z latent channels, a action width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from .cache_dreamer import DreamerCache
from .compile_rollout import compile_pass, decoder_pass, warm_up
from .frame_inputs import FrameInput, context_actions
from .latent_rollout import DreamerLatentRollout, DreamerRolloutOutput
from .rollout_noise import Generators


class DreamerRollout:
    """A dream in pixels. Made by [`DreamerWorldModel.start_rollout`]; see there for the arguments.

    Attributes:
        latent_rollout: the dream itself; this class adds the decoder and its cache.
    """

    def __init__(self, world, latent_rollout: DreamerLatentRollout):
        self.world = world
        self.latent_rollout = latent_rollout
        self._decoder_pass = decoder_pass
        self._decoder_cache = self._prime_decoder(latent_rollout.context.latents)

    @property
    def frame_index(self) -> int:
        """Index of the frame that the next step dreams, the first context frame being 0."""
        return self.latent_rollout.frame_index

    @property
    def batch_size(self) -> int:
        """Rows of the rollout."""
        return self.latent_rollout.batch_size

    @property
    def caches(self) -> tuple[DreamerCache, DreamerCache]:
        """Return the caches of the dynamics model and of the decoder, for measurements."""
        return self.latent_rollout._cache, self._decoder_cache

    @torch.no_grad()
    def step(self, actions, action_mask=None, start_noise=None, commit_noise=None) -> DreamerRolloutOutput:
        """Dreams one frame in every row; arguments and errors as in [`DreamerLatentRollout.step`].

        Returns:
            [`DreamerRolloutOutput`] with `pixel_values` (B,3,H,W) in [0, 1] and `latents` (B,N_z,d_z).
        """
        output = self.latent_rollout.step(actions, action_mask, start_noise, commit_noise)
        frames = self._decoder_pass(self.world.tokenizer, output.latents[:, None], self._decoder_cache)
        output.pixel_values = frames[:, 0]
        return output

    @torch.no_grad()
    def reset(
        self,
        pixel_values_videos: FrameInput | None = None,
        actions=None,
        action_mask=None,
        rows=None,
        context_noise=None,
        generator: Generators = None,
    ) -> torch.Tensor:
        """Starts over: from the first context (no frames given) or a new one, in all rows or in some.

        Args:
            pixel_values_videos: context frames, as in `start_rollout`; with `rows`, one entry a row named there.
            actions, action_mask: (B,C,a) and (B,C), as in `start_rollout`.
            rows: indices of the rows to restart; the others go on undisturbed. None restarts the whole rollout.
            context_noise: as in `start_rollout`.
            generator: as in [`DreamerLatentRollout.reset`].

        Returns:
            Clean latents (B,C,N_z,d_z) of the context frames.
        """
        latents = None
        if pixel_values_videos is not None:
            actions, action_mask = context_actions(pixel_values_videos, actions, action_mask)
            latents = self.world.encode(pixel_values_videos).latents
        latents = self.latent_rollout.reset(latents, actions, action_mask, rows, context_noise, generator)
        self._reset_decoder(latents, rows)
        return latents

    def compile(self) -> None:
        """Compiles the passes of a step with `torch.compile`, for this number of rows: minutes, with a progress bar.

        Steps then give the same frames to rounding. On a GPU passes run as CUDA graphs. On a CPU the weights become
        part of the code: after changing them, or the model, compile again. Clones and resets stay compiled; compiling
        another rollout of this model and number of rows takes seconds.
        """
        self.latent_rollout.compile()
        self._decoder_pass = compile_pass(decoder_pass, self.world.tokenizer)
        twin = self.clone()
        twin.latent_rollout = self.latent_rollout._just_started()
        warm_up(twin.step, ["decoder pass"], self.world.device)

    def clone(self, rows=None) -> DreamerRollout:
        """An independent copy: branch the future, then step both; arguments as in [`DreamerLatentRollout.clone`].

        ```python
        futures = rollout.clone(rows=[0] * 64)   # one dream in 64 copies
        frames = futures.step(actions)           # (64, a): 64 things to try
        ```
        """
        twin = copy.copy(self)
        twin.latent_rollout = self.latent_rollout.clone(rows)
        twin._decoder_cache = self._decoder_cache.clone(rows)
        if rows is not None:
            twin._decoder_pass = decoder_pass
        return twin

    @staticmethod
    def join(rollouts: Sequence[DreamerRollout]) -> DreamerRollout:
        """Return one rollout with the rows of several, in the order given; they stay unchanged.

        Each row continues as it would have in its own rollout, to rounding, also if that rollout is at another frame.
        Together with `clone(rows)` this lets rows leave a batch, wait, and come back. The new rollout is not compiled;
        its `frame_index` is the largest one. `reset` needs frames if the contexts had different lengths.

        ```python
        batch = DreamerRollout.join([first, second])            # two rollouts of one world, one row each
        frames = batch.step(actions).pixel_values               # (2, 3, H, W)
        first, second = batch.clone(rows=[0]), batch.clone(rows=[1])
        ```

        Raises:
            ValueError: the rollouts are of different worlds or schedules, or only some rows have a generator.
        """
        joined = copy.copy(rollouts[0])
        joined.latent_rollout = DreamerLatentRollout.join([rollout.latent_rollout for rollout in rollouts])
        joined._decoder_pass = decoder_pass
        joined._decoder_cache = DreamerCache.join([rollout._decoder_cache for rollout in rollouts])
        return joined

    def copy_(self, other: DreamerRollout) -> None:
        """Becomes an independent copy of another rollout of this world and number of rows, in place: the way back to a clone
        that was kept, for which nothing compiled has to be recorded anew.

        Raises:
            ValueError: the other rollout has another number of rows.
        """
        if other.batch_size != self.batch_size:
            raise ValueError(
                f"a rollout of {self.batch_size} row(s) cannot become one of {other.batch_size}: clone that one."
            )
        self.latent_rollout.copy_(other.latent_rollout)
        self._decoder_cache.copy_(other._decoder_cache)

    def _reset_decoder(self, latents: torch.Tensor, rows) -> None:
        if rows is None:
            self._decoder_cache = self._prime_decoder(latents).in_place_of(self._decoder_cache)
            return
        start = self._decoder_cache.next_position - latents.shape[1]
        rows = torch.as_tensor(rows, device=latents.device)
        self._decoder_cache.replace_rows(rows, self._prime_decoder(latents, start))

    @torch.no_grad()
    def _prime_decoder(self, latents: torch.Tensor, start_position: int | torch.Tensor = 0) -> DreamerCache:
        """A decoder cache that has seen clean context latents (B,C,N_z,d_z)."""
        tokenizer = self.world.tokenizer
        cache = tokenizer.new_decoder_cache(latents.shape[0], start_position)
        tokenizer.decode(latents, past_key_values=cache)
        return cache


__all__ = ["DreamerRollout"]
