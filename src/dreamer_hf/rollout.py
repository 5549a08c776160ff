"""Rollouts in pixels: a latent rollout, and the decoder with its cache.

Shapes: B rows, R of them, C context frames, H, W pixels, N_z latent tokens, d_z latent channels, S state
components, a action width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from .cache_dreamer import DreamerCache, row_indices
from .camera_views import camera_rows, decode_cameras
from .compile_rollout import compile_pass, decoder_pass, warm_up
from .frame_inputs import FrameInput
from .latent_rollout import DreamerLatentRollout, DreamerRolloutOutput, on_ordinary_tensors
from .rollout_frames import Context
from .rollout_noise import Generators


class DreamerRollout:
    """A dream in pixels. Made by [`DreamerWorldModel.start_rollout`].

    With V cameras, frames have one more axis: (B, C, V, 3, H, W) and (B, V, 3, H, W).

    A call that fails or is refused leaves the rollout unchanged, its noise included.

    ```python
    rollout = world.start_rollout(frames)               # (B, C, 3, H, W) uint8
    frame = rollout.step(actions).pixel_values          # (B, a) raw -> (B, 3, H, W) in [0, 1]
    futures = rollout.clone(rows=[0] * 64)              # try 64 things from here
    rollout.reset()                                     # start again
    ```

    Args:
        world: the `DreamerWorldModel`.
        latent_rollout: a rollout of its dynamics model that has just started.

    Attributes:
        latent_rollout: the dream itself; this class adds the decoder and its cache.
    """

    @on_ordinary_tensors
    def __init__(self, world, latent_rollout: DreamerLatentRollout):
        self.world = world
        self.latent_rollout = latent_rollout
        self._decoder_pass = decoder_pass
        self._decoder_cache = self._primed_decoder_cache(latent_rollout.context)

    @property
    def frame_index(self) -> int:
        """Index of the frame that the next step generates; the first context frame has index 0."""
        return self.latent_rollout.frame_index

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.latent_rollout.batch_size

    @property
    def caches(self) -> tuple[DreamerCache, DreamerCache]:
        """The caches of the dynamics model and of the decoder, for measurements."""
        return self.latent_rollout.cache, self._decoder_cache

    @on_ordinary_tensors
    def step(
        self,
        actions,
        action_mask=None,
        start_noise=None,
        commit_noise=None,
        start_state_noise=None,
        commit_state_noise=None,
    ) -> DreamerRolloutOutput:
        """Generate one frame in every row; arguments and errors as in [`DreamerLatentRollout.step`].

        Returns:
            [`DreamerRolloutOutput`] with `pixel_values` (B,3,H,W) in [0, 1], `latents` (B,N_z,d_z) and, if the world
            has a state, `state` (B,S) in the units of the data.
        """
        noise = start_noise, commit_noise, start_state_noise, commit_state_noise
        with self.latent_rollout.undone_on_failure(), self._decoder_cache.undone_on_failure():
            output = self.latent_rollout.step(actions, action_mask, *noise)
            frames = self._decoder_pass(self.world.tokenizer, output.latents[:, None], self._decoder_cache)
        output.pixel_values = frames[:, 0]
        return output

    @on_ordinary_tensors
    def observe(self, latents, actions, action_mask=None, states=None, state_mask=None) -> DreamerRolloutOutput:
        """Make a frame that is known the past of every row; arguments as in [`DreamerLatentRollout.observe`].

        Returns:
            [`DreamerRolloutOutput`] with the frame as the decoder shows it.
        """
        latents = torch.as_tensor(latents, dtype=torch.float32, device=self.world.device)
        with self.latent_rollout.undone_on_failure(), self._decoder_cache.undone_on_failure():
            self.latent_rollout.observe(latents, actions, action_mask, states, state_mask)
            frames = self._decoder_pass(self.world.tokenizer, latents[:, None], self._decoder_cache)
        return DreamerRolloutOutput(pixel_values=frames[:, 0], latents=latents)

    @on_ordinary_tensors
    def reset(
        self,
        pixel_values_videos: FrameInput | None = None,
        actions=None,
        action_mask=None,
        rows=None,
        context_noise=None,
        generator: Generators = None,
        states=None,
        state_mask=None,
    ) -> torch.Tensor:
        """Start again, from the first context or a new one, in all rows or in some.

        Args:
            pixel_values_videos: context frames (B,C,3,H,W), as in `start_rollout`; with `rows`, (R,C,3,H,W). Default:
                the first context.
            actions, action_mask: (B,C,a) and (B,C), as in `start_rollout`.
            rows: R indices of the rows to restart; the others continue undisturbed. Default: all rows.
            context_noise: as in `start_rollout`.
            generator: as in [`DreamerLatentRollout.reset`].
            states, state_mask: (B,C,S) and (B,C), as in `start_rollout`.

        Returns:
            Clean latents (B,C,N_z,d_z) of the context frames. Frames so long ago that they cannot influence the
            rollout are not encoded.

        Raises:
            ValueError: frames, actions, noise or generators that do not fit, or indices that are not those of rows.
        """
        indices = None
        if rows is not None:
            indices = row_indices(rows, self.batch_size, self.world.device, unique=True)
        if pixel_values_videos is None:
            context = self.latent_rollout.context_of(indices)
        else:
            context = self.world.make_context(pixel_values_videos, actions, action_mask, states, state_mask)
        return self.restart(context, indices, context_noise, generator).latents

    @on_ordinary_tensors
    def restart(self, context: Context, rows=None, context_noise=None, generator: Generators = None) -> Context:
        """Start again from a context made by `make_context`; see `reset`. Returns the context."""
        indices = None
        if rows is not None:
            indices = row_indices(rows, self.batch_size, self.world.device, unique=True)
        end_position = None if rows is None else self._decoder_cache.next_position
        decoder_cache = self._primed_decoder_cache(context, end_position)
        self.latent_rollout.restart(context, indices, context_noise, generator)
        if rows is not None:
            self._decoder_cache.replace_rows(camera_rows(indices, self._num_cameras), decoder_cache)
            return context
        if decoder_cache.batch_size != self._decoder_cache.batch_size:
            self._decoder_pass = decoder_pass  # compiled for another number of rows
        self._decoder_cache = decoder_cache.in_place_of(self._decoder_cache)
        return context

    @on_ordinary_tensors
    def compile(self) -> None:
        """Compile the passes of a step with `torch.compile`, for this number of rows: minutes, with a progress bar.

        Steps then give the same frames, to rounding. On a GPU passes run as CUDA graphs. On a CPU the weights become
        part of the code: compile again after changing them. Clones of all rows, resets and copies in place stay
        compiled; compiling another rollout of this model and number of rows takes seconds.
        """
        self.latent_rollout.compile()
        compiled = compile_pass(decoder_pass, self.world.tokenizer)
        config, cache = self.world.config.dynamics_config, self._decoder_cache.clone()
        shape = (self.batch_size, 1, config.num_latent_tokens, config.latent_dim)
        latents = torch.zeros(shape, device=self.world.device)
        warm_up(lambda: compiled(self.world.tokenizer, latents, cache), ["decoder pass"], self.world.device)
        self._decoder_pass = compiled

    @on_ordinary_tensors
    def clone(self, rows: Sequence[int] | None = None) -> DreamerRollout:
        """Return an independent copy: branch the future, then step both. Generators are copied with their state.

        Args:
            rows: indices of the rows to copy, in this order and as often as named: `[0] * 64` is one dream in 64
                copies, to try 64 futures in one batch. Such a copy is not compiled. Default: all rows.

        Raises:
            ValueError: `rows` is empty or holds something else than indices of rows.

        ```python
        futures = rollout.clone(rows=[0] * 64)
        frames = futures.step(actions).pixel_values     # (64, a): 64 things to try
        ```
        """
        twin = copy.copy(self)
        twin.latent_rollout = self.latent_rollout.clone(rows)
        if rows is not None:
            indices = row_indices(rows, self.batch_size, self.world.device)
            rows = camera_rows(indices, self._num_cameras).tolist()
        twin._decoder_cache = self._decoder_cache.clone(rows)
        if rows is not None:
            twin._decoder_pass = decoder_pass
        return twin

    @staticmethod
    @on_ordinary_tensors
    def join(rollouts: Sequence[DreamerRollout]) -> DreamerRollout:
        """Return one rollout with the rows of several, in this order; they stay unchanged.

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
        latent_rollout = DreamerLatentRollout.join([rollout.latent_rollout for rollout in rollouts])
        joined = copy.copy(rollouts[0])
        joined.latent_rollout, joined._decoder_pass = latent_rollout, decoder_pass
        joined._decoder_cache = DreamerCache.join([rollout._decoder_cache for rollout in rollouts])
        return joined

    @on_ordinary_tensors
    def copy_(self, other: DreamerRollout) -> None:
        """Become an independent copy of another rollout, in place.

        This is the way back to a clone that was kept: what is compiled stays compiled.

        Raises:
            ValueError: the other rollout is of another world, or has another number of rows.
        """
        self.latent_rollout.copy_(other.latent_rollout)
        self._decoder_cache.copy_(other._decoder_cache)

    @property
    def _num_cameras(self) -> int:
        return self.world.config.dynamics_config.num_cameras

    def _primed_decoder_cache(self, context: Context, end_position: torch.Tensor | None = None) -> DreamerCache:
        """Return a new decoder cache that has seen the clean context latents.

        Args:
            end_position: position of the frame after the context. Default: its number of frames.
        """
        tokenizer = self.world.tokenizer
        latents = context.latents[:, -max(tokenizer.decoder.transformer.reach, 1) :]
        end_position = context.num_frames if end_position is None else end_position
        rows = len(latents) * self._num_cameras
        cache = tokenizer.new_decoder_cache(rows, end_position - latents.shape[1])
        for chunk in cache.chunks(latents.shape[1]):
            decode_cameras(tokenizer, latents[:, chunk], cache)
        return cache


__all__ = ["DreamerRollout"]
