"""An agent that acts, in reality or in a dream. The state of an episode lives in the object and never on a module.

What the agent knows is read where a frame becomes part of the past. Reality and dreams have that pass in common, so
the agent meets the same inputs in both (arXiv 2509.24527 leaves this open).

Shapes: B rows, R of them, C context frames, N choices of an action, H, W pixels, N_z latent tokens, d_z latent
channels, S state components, a action width, K what the agent knows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch

from .agent_heads import Tasks
from .cache_dreamer import DreamerCache, row_indices
from .camera_views import camera_rows
from .frame_inputs import FrameInput
from .latent_rollout import DreamerLatentRollout, DreamerRolloutOutput, on_ordinary_tensors
from .rollout import DreamerRollout
from .rollout_frames import Context
from .rollout_noise import Generators, draw_noise


class AgentEpisode:
    """An agent in B rows, each an episode. Made by `DreamerAgentModel.start` or `start_from_latents`.

    ```python
    episode = agent.start(frames, tasks=0)              # (B, C, 3, H, W): real frames, one is enough
    action = episode.act()                              # (B, a) raw
    episode.observe(next_frames, action)                # reality answers, (B, 3, H, W)
    frame = episode.dream().pixel_values                # or the world does: the agent acts, and its dream continues
    ```

    Every frame draws noise in the same order, no matter who acts: its start (in a dream), its commit, the next action.

    Args:
        agent: the `DreamerAgentModel`.
        rollout: a rollout of its world that has agent tokens, in pixels or in latent space.
        encoder_cache: cache that has encoded the context frames; None if frames are given as latents.

    Attributes:
        agent: the agent.
        rollout: the past of every row.
    """

    def __init__(
        self, agent, rollout: DreamerRollout | DreamerLatentRollout, encoder_cache: DreamerCache | None = None
    ):
        self.agent, self.rollout = agent, rollout
        self._encoder_cache = encoder_cache
        self._draw_action_noise()

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.rollout.batch_size

    @property
    def frame_index(self) -> int:
        """Index of the next frame; the first context frame has index 0."""
        return self.rollout.frame_index

    @property
    @on_ordinary_tensors
    def agent_states(self) -> torch.Tensor:
        """What the agent knows at the present frame, (B,K)."""
        return self.agent.known(latent_rollout_of(self.rollout).agent.states)

    @property
    @on_ordinary_tensors
    def rewards(self) -> torch.Tensor:
        """What arriving at the present frame was worth, as the agent expects it, (B,) float32."""
        return self.agent.rewards_of(self.agent_states)

    @property
    @on_ordinary_tensors
    def values(self) -> torch.Tensor:
        """The discounted rewards that the agent expects after the present frame, (B,) float32."""
        return self.agent.values_of(self.agent_states)

    @property
    @on_ordinary_tensors
    def continues(self) -> torch.Tensor:
        """The probability (B,) that the episode continues after the present frame; 1 without a continue head."""
        return self.agent.continues_of(self.agent_states)

    def act(self, deterministic: bool = False, temperature: float = 1.0) -> torch.Tensor:
        """Return the agent's next action in every row, (B,a) float32, raw; asked again, it is the same.

        Args:
            deterministic: take the most likely action. Defaults to False: draw one, as the policy was trained.
            temperature: below 1 favors likely actions. Defaults to 1.
        """
        return self.agent.actions.decode(self.choose(deterministic, temperature))

    @on_ordinary_tensors
    def choose(self, deterministic: bool = False, temperature: float = 1.0, use_prior: bool = False) -> torch.Tensor:
        """Return the next action as choices (B,N), see `ActionDistribution`; with `use_prior`, those of the prior."""
        head = self.agent.prior_head if use_prior else self.agent.policy_head
        logits = head.nearest(self.agent_states)
        if deterministic:
            return self.agent.actions.mode(logits)
        return self.agent.actions.sample(logits, self._action_noise, temperature)

    @on_ordinary_tensors
    def dream(self, actions=None, action_mask=None, start_noise=None, commit_noise=None) -> DreamerRolloutOutput:
        """Dream the next frame in every row.

        Args:
            actions: (B,a) raw, those of someone else. Default: the agent acts (`act`).
            action_mask, start_noise, commit_noise: as in [`DreamerLatentRollout.step`].

        Returns:
            The frame, as [`DreamerRollout.step`] returns it.
        """
        actions = self.act() if actions is None else actions
        output = self.rollout.step(actions, action_mask, start_noise, commit_noise)
        self._encoder_cache = None  # it has not seen this frame
        self._draw_action_noise()
        return output

    @on_ordinary_tensors
    def observe(self, frames: FrameInput, actions, action_mask=None, states=None, state_mask=None) -> None:
        """Take in the next frame of every row, of a camera or a simulator.

        Args:
            frames: (B,3,H,W), or (B,V,3,H,W) of several cameras; integers (0..255) or floats in [0, 1].
            actions, action_mask: (B,a) raw and (B,), what led to the frame; as in [`DreamerLatentRollout.step`].
            states, state_mask: (B,S) and (B,), in the units of the data, if the world has a state.

        Raises:
            ValueError: a shape that does not fit, or rows that have dreamed since their last real frame.
        """
        if self._encoder_cache is None:
            raise ValueError(
                "this episode has dreamed since its last real frame, or has never seen one: dream in a clone and "
                "observe here, or start again."
            )
        world = self.agent.world
        frames = torch.as_tensor(frames)[:, None]
        with self._encoder_cache.undone_on_failure():
            latents = world.encode(frames, self._encoder_cache).latents[:, 0].float()
            self.rollout.observe(latents, actions, action_mask, states, state_mask)
        self._draw_action_noise()

    @on_ordinary_tensors
    def observe_latents(self, latents, actions, action_mask=None, states=None, state_mask=None) -> None:
        """Take in the next frame of every row as clean latents (B,N_z,d_z); other arguments as in `observe`."""
        self.rollout.observe(latents, actions, action_mask, states, state_mask)
        self._encoder_cache = None
        self._draw_action_noise()

    @on_ordinary_tensors
    def set_tasks(self, tasks: Tasks) -> None:
        """Give every row another task, from the next frame on; the agent acts on it when it has seen that frame."""
        rollout = latent_rollout_of(self.rollout)
        tokens = self.agent.agent_tokens(tasks, self.batch_size, 1)
        rollout.agent = replace(rollout.agent, tokens=tokens)

    @on_ordinary_tensors
    def set_generator(self, generator: Generators) -> None:
        """Draw all noise from another source from here on, that of the next action included."""
        latent_rollout_of(self.rollout).generator = generator
        self._draw_action_noise()

    @on_ordinary_tensors
    def restart(
        self,
        frames: FrameInput,
        actions=None,
        action_mask=None,
        tasks: Tasks = None,
        rows: Sequence[int] | None = None,
        generator: Generators = None,
        states=None,
        state_mask=None,
    ) -> None:
        """Start again from new frames, in all rows or in some; the others continue undisturbed.

        Args:
            frames, actions, action_mask, tasks, states, state_mask: as in `DreamerAgentModel.start`, of R rows.
            rows: R indices. Default: all rows.
            generator: as in [`DreamerLatentRollout.reset`].
        """
        end = None if rows is None or self._encoder_cache is None else self._encoder_cache.next_position
        context, cache = encoded_context(self.agent, frames, actions, action_mask, tasks, states, state_mask, end)
        self._restart(context, rows, generator)
        if rows is None:
            self._encoder_cache = cache
        elif self._encoder_cache is not None:
            indices = row_indices(rows, self.batch_size, self.agent.device)
            self._encoder_cache.replace_rows(camera_rows(indices, self._num_cameras), cache)

    @on_ordinary_tensors
    def restart_from(self, context: Context, rows: Sequence[int] | None = None, generator: Generators = None) -> None:
        """Start again from a context of R rows that has agent tokens, which `observe` cannot continue; see
        `restart`."""
        self._restart(context, rows, generator)
        self._encoder_cache = None

    def _restart(self, context: Context, rows: Sequence[int] | None, generator: Generators) -> None:
        self.rollout.restart(context, rows, None, generator)
        if rows is None:
            self._draw_action_noise()
            return
        latents = latent_rollout_of(self.rollout)
        indices = row_indices(rows, self.batch_size, self.agent.device)
        source = latents.generator
        if isinstance(source, Sequence):
            source = [source[row] for row in indices.tolist()]
        noise = draw_noise((len(indices), self.agent.actions.num_choices), source, self.agent.device)
        self._action_noise = self._action_noise.index_copy(0, indices, noise)

    def compile(self) -> None:
        """Compile the passes for this number of rows; see [`DreamerRollout.compile`]."""
        self.rollout.compile()

    @on_ordinary_tensors
    def clone(self, rows: Sequence[int] | None = None) -> AgentEpisode:
        """Return an independent copy: all rows, or the given ones, as often as named; see [`DreamerRollout.clone`].

        Copies of one row draw the same noise, and so do the same; `set_generator` lets them differ.
        """
        twin = copy.copy(self)
        twin.rollout = self.rollout.clone(rows)
        indices = None
        if rows is not None:
            indices = row_indices(rows, self.batch_size, self.agent.device)
            twin._action_noise = self._action_noise[indices]
        if self._encoder_cache is not None:
            indices = None if indices is None else camera_rows(indices, self._num_cameras)
            twin._encoder_cache = self._encoder_cache.clone(indices)
        return twin

    @staticmethod
    @on_ordinary_tensors
    def join(episodes: Sequence[AgentEpisode]) -> AgentEpisode:
        """Return one episode with the rows of several, which stay unchanged; see [`DreamerRollout.join`]."""
        if not episodes:
            raise ValueError("expected at least one episode to join.")
        joined = copy.copy(episodes[0])
        joined.rollout = type(joined.rollout).join([episode.rollout for episode in episodes])
        joined._action_noise = torch.cat([episode._action_noise for episode in episodes])
        caches = [episode._encoder_cache for episode in episodes]
        joined._encoder_cache = None if any(cache is None for cache in caches) else DreamerCache.join(caches)
        return joined

    @on_ordinary_tensors
    def copy_(self, other: AgentEpisode) -> None:
        """Become an independent copy of another episode of as many rows, in place; see [`DreamerRollout.copy_`]."""
        self.rollout.copy_(other.rollout)
        self._action_noise = other._action_noise
        self._encoder_cache = None if other._encoder_cache is None else other._encoder_cache.clone()

    @property
    def _num_cameras(self) -> int:
        return self.agent.config.dynamics_config.num_cameras

    def _draw_action_noise(self) -> None:
        shape = self.batch_size, self.agent.actions.num_choices
        self._action_noise = draw_noise(shape, latent_rollout_of(self.rollout).generator, self.agent.device)


def latent_rollout_of(rollout: DreamerRollout | DreamerLatentRollout | AgentEpisode) -> DreamerLatentRollout:
    """Return the latent rollout of an episode or of a rollout in pixels; one in latent space is returned unchanged."""
    rollout = getattr(rollout, "rollout", rollout)
    return getattr(rollout, "latent_rollout", rollout)


def encoded_context(
    agent,
    frames: FrameInput,
    actions,
    action_mask,
    tasks: Tasks,
    states,
    state_mask,
    end_position: torch.Tensor | None = None,
) -> tuple[Context, DreamerCache]:
    """Return the context of an episode, with agent tokens, and the encoder cache that has seen its frames.

    Args:
        end_position: position of the frame after the context in the cache. Default: the number of frames.
    """
    world = agent.world
    shape = world.checked_frames(frames).shape[:2]
    num_encoded = min(shape[1], world.num_needed_frames(has_agent=True))
    start_position = 0 if end_position is None else end_position - num_encoded
    num_cameras = agent.config.dynamics_config.num_cameras
    cache = world.tokenizer.new_encoder_cache(shape[0] * num_cameras, start_position)
    tokens = agent.agent_tokens(tasks, shape[0], 1)
    return world.make_context(frames, actions, action_mask, states, state_mask, tokens, cache), cache


__all__ = ["AgentEpisode", "encoded_context", "latent_rollout_of"]
