"""Acting, imagining and judging, for `DreamerAgentModel` (arXiv 2509.24527, sections 3.3 and 4.1).

Shapes: B rows, C context frames, N_z latent tokens, d_z latent channels, S state components, a
action width.
"""

from __future__ import annotations

import torch

from .agent_episode import AgentEpisode, encoded_context, latent_rollout_of
from .agent_heads import Tasks
from .agent_reward import AgentReward
from .frame_inputs import FrameInput
from .generation_config_dreamer import DreamerGenerationMixin
from .imagination import ImaginedTrajectories, imagine
from .latent_rollout import DreamerLatentRollout, on_ordinary_tensors
from .rollout import DreamerRollout
from .rollout_frames import make_context
from .rollout_noise import Generators


class DreamerAgentRolloutMixin(DreamerGenerationMixin):
    """Episodes and imagination of [`DreamerAgentModel`]."""

    @on_ordinary_tensors
    def start(
        self,
        pixel_values_videos: FrameInput,
        actions=None,
        action_mask=None,
        tasks: Tasks = None,
        num_inference_steps: int | None = None,
        context_signal_level: float | None = None,
        generator: Generators = None,
        states=None,
        state_mask=None,
        decode: bool = True,
    ) -> AgentEpisode:
        """Start to act from real frames.

        Args:
            pixel_values_videos: context frames (B,C,3,H,W), or `StartFrames`, as in
                [`DreamerWorldModel.start_rollout`]. One is enough.
            actions, action_mask: (B,C,a) raw and (B,C), those that led to the frames. Default: none is known.
            tasks: what to do: number or name of a task, or one for each row; see `agent_heads.Tasks`.
            num_inference_steps, context_signal_level, generator: as in [`DreamerDynamicsModel.start_rollout`].
            states, state_mask: (B,C,S) and (B,C), as in [`DreamerDynamicsModel.start_rollout`].
            decode: whether `dream` returns frames. False saves a pass of the decoder for every frame, observed ones
                included. Defaults to True.

        Returns:
            [`AgentEpisode`]; any number of them can run side by side on one agent.

        Raises:
            ValueError: a shape that does not fit, or a task that the agent does not know.
        """
        schedule = self.rollout_schedule(num_inference_steps, context_signal_level)
        context, cache = encoded_context(self, pixel_values_videos, actions, action_mask, tasks, states, state_mask)
        rollout = DreamerLatentRollout(self.world.dynamics, context, schedule, generator)
        return AgentEpisode(self, DreamerRollout(self.world, rollout) if decode else rollout, cache)

    @on_ordinary_tensors
    def start_from_latents(
        self,
        latents: torch.FloatTensor,
        actions=None,
        action_mask=None,
        tasks: Tasks = None,
        num_inference_steps: int | None = None,
        context_signal_level: float | None = None,
        generator: Generators = None,
        context_noise: torch.FloatTensor | None = None,
        states=None,
        state_mask=None,
        context_state_noise: torch.FloatTensor | None = None,
    ) -> AgentEpisode:
        """Start to act in latent space.

        Args:
            latents: (B,C,N_z,d_z) clean latents of the context frames.
            actions, action_mask, tasks, num_inference_steps, context_signal_level, generator, states,
            state_mask: as in `start`.
            context_noise, context_state_noise: (B,C,N_z,d_z) and (B,C,S); drawn by default.
        """
        schedule = self.rollout_schedule(num_inference_steps, context_signal_level)
        tokens = self.agent_tokens(tasks, len(latents), 1)
        context = make_context(latents, actions, action_mask, self.world.dynamics, 0, states, state_mask, tokens)
        return AgentEpisode(
            self,
            DreamerLatentRollout(
                self.world.dynamics, context, schedule, generator, context_noise, context_state_noise
            ),
        )

    @on_ordinary_tensors
    def imagine(
        self,
        latents: torch.FloatTensor,
        actions=None,
        action_mask=None,
        tasks: Tasks = None,
        horizon: int = 16,
        num_inference_steps: int | None = None,
        context_signal_level: float | None = None,
        generator: Generators = None,
        states=None,
        state_mask=None,
        deterministic: bool = False,
        use_prior: bool = False,
        return_latents: bool = False,
    ) -> ImaginedTrajectories:
        """Act in dreams that start from context latents, one for each row, without gradient.

        Each frame takes one step of the policy, the denoising passes, and the pass that commits the frame. The same
        generator gives the policy and the prior the same noise.

        Args:
            latents, actions, action_mask, tasks, num_inference_steps, context_signal_level, generator, states,
            state_mask: as in `start_from_latents`.
            horizon, deterministic, use_prior, return_latents: as in `imagination.imagine`.
        """
        given = latents, actions, action_mask, tasks, num_inference_steps, context_signal_level, generator
        episode = self.start_from_latents(*given, states=states, state_mask=state_mask)
        return imagine(episode, horizon, deterministic, use_prior, return_latents)

    @on_ordinary_tensors
    def rewards(self, rollout) -> torch.Tensor:
        """Return what the last frame of each row was worth, (B,) float32.

        Args:
            rollout: an `AgentEpisode`, or its rollout: `-agent.rewards(rollout)` is a cost for a
                `CrossEntropyPlanner` with `cost_reads="rollout"`.
        """
        return self.rewards_of(self.known(latent_rollout_of(rollout).agent.states))

    @on_ordinary_tensors
    def values(self, rollout) -> torch.Tensor:
        """Return the discounted rewards expected after the last frame of each row, (B,) float32; see `rewards`."""
        return self.values_of(self.known(latent_rollout_of(rollout).agent.states))

    def reward_fn(self, tasks: Tasks = None) -> AgentReward:
        """Return a function that rewards the steps of any dream environment of this world; see `AgentReward`.

        ```python
        reward_fn = agent.reward_fn(0)
        env = gymnasium.make("dreamer_hf/DreamerWorld-v0", model=agent.world, start=starts, reward_fn=reward_fn)
        ```

        Args:
            tasks: number, name or vector of the task.
        """
        return AgentReward(self, tasks)


__all__ = ["DreamerAgentRolloutMixin"]
