"""The agent: a world, agent tokens that see it, and the heads that act and judge (arXiv 2509.24527, section 3.3).

Shapes: B rows, T frames, P context frames of which the others are copies, N_z latent tokens, d_z latent channels, S
state components, a action width, K what the agent knows, L prediction distances, W logits of an action, M value bins.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple

from .agent_distributions import ActionDistribution
from .agent_heads import (
    DreamerAgentEye,
    DreamerAgentHead,
    DreamerAgentTokens,
    HeadOutput,
    Tasks,
)
from .agent_losses import symexp_bins, two_hot_mean
from .agent_rows import raw_agent_states
from .cache_dreamer import DreamerCache
from .configuration_dreamer_agent import DreamerAgentConfig
from .generation_dreamer_agent import DreamerAgentRolloutMixin
from .modeling_dreamer_world import DreamerWorldModel
from .modeling_layers import DreamerPreTrainedModel
from .scheduling_shortcut import RolloutSchedule


@dataclass
class DreamerAgentOutput(ModelOutput):
    """Output of [`DreamerAgentModel`]. T is P if the frames after the first P are copies of these.

    Args:
        latents (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`): prediction of the clean latents of all frames,
            copies included.
        states (`torch.FloatTensor` of shape `(B, T, S)`, *optional*): likewise of the clean normalized states.
        agent_states (`torch.FloatTensor` of shape `(B, T, K)`): what the agent knows at each frame: what its tokens
            became, and what its eye sees.
        policy_logits (`torch.FloatTensor` of shape `(B, T, L, W)`): at [:, t, n] those of the action of frame t+1+n.
        reward_logits (`torch.FloatTensor` of shape `(B, T, L, M)`): at [:, t, n] those of the reward of frame t+n.
        value_logits (`torch.FloatTensor` of shape `(B, T, M)`): of the discounted rewards after each frame.
        continue_logits (`torch.FloatTensor` of shape `(B, T)`, *optional*): of the episode continuing after each
            frame.
        past_key_values (`DreamerCache`, *optional*): the given cache, which now includes the committed frames.
        hidden_states, attentions (`tuple(torch.FloatTensor)`, *optional*): of the dynamics model; returned with
            `output_hidden_states=True` and `output_attentions=True`.
    """

    latents: torch.FloatTensor | None = None
    states: torch.FloatTensor | None = None
    agent_states: torch.FloatTensor | None = None
    policy_logits: torch.FloatTensor | None = None
    reward_logits: torch.FloatTensor | None = None
    value_logits: torch.FloatTensor | None = None
    continue_logits: torch.FloatTensor | None = None
    past_key_values: DreamerCache | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class DreamerAgentModel(DreamerAgentRolloutMixin, DreamerPreTrainedModel):
    """An agent and the world that it acts in.

    Agent tokens are appended to the tokens of every frame of the dynamics model. They see everything, and nothing sees
    them: the world dreams what it dreams without an agent. The heads read what the transformer makes of them.

    ```python
    agent = DreamerAgentModel.from_pretrained("path-or-repo")
    episode = agent.start(frames, tasks=0)              # (B, C, 3, H, W): real frames, one is enough
    action = episode.act()                              # (B, a) raw
    episode.observe(next_frames, action)                # what a camera shows then, (B, 3, H, W)
    ```

    Args:
        config: the agent's configuration. With a `world`, its world config is that of the world.
        world: the `DreamerWorldModel` to act in; a new one with random weights by default.

    Attributes:
        world: the world, whole: its dreams, its tokenizer, its dynamics model.
        agent_tokens, eye, policy_head, reward_head, value_head: what the agent adds.
        prior_head: the policy that learning in dreams stays close to; see `keep_policy_as_prior`.
        continue_head: None unless `config.predicts_continue`.
        actions: the distribution of actions, an `ActionDistribution`.
    """

    config: DreamerAgentConfig
    main_input_name = "latents"

    def __init__(self, config: DreamerAgentConfig, world: DreamerWorldModel | None = None):
        super().__init__(config)
        self.world = world or DreamerWorldModel(config.world_config)
        self.generation_config = self.world.generation_config  # one for both
        self.actions = ActionDistribution(config)
        steps = config.num_predicted_steps
        self.agent_tokens = DreamerAgentTokens(config)
        self.eye = DreamerAgentEye(config)
        self.policy_head = DreamerAgentHead(config, self.actions.num_logits, steps)
        self.prior_head = DreamerAgentHead(config, self.actions.num_logits, steps)
        self.reward_head = DreamerAgentHead(config, config.num_value_bins, steps)
        self.value_head = DreamerAgentHead(config, config.num_value_bins)
        self.continue_head = DreamerAgentHead(config, 1) if config.predicts_continue else None
        self.post_init()

    @classmethod
    def from_world_pretrained(cls, path_or_repo, agent_config: dict | None = None, **kwargs) -> "DreamerAgentModel":
        """Make an agent with untrained heads for a saved world, in eval mode.

        ```python
        agent = DreamerAgentModel.from_world_pretrained("outputs/world", {"num_tasks": 4, "joint_action_bins": True})
        ```

        Args:
            path_or_repo: folder or Hub repository of a `DreamerWorldModel`.
            agent_config: fields of [`DreamerAgentConfig`] that differ from their defaults.
            kwargs: arguments of `from_pretrained` (`dtype`, `revision`, ...).

        Raises:
            ValueError: an agent cannot act in this world, or the fields are invalid.
            OSError: there is no such world.
        """
        world = DreamerWorldModel.from_pretrained(path_or_repo, **kwargs)
        return cls.for_world(world, **(agent_config or {})).eval()

    @classmethod
    def for_world(cls, world: DreamerWorldModel, **agent_config) -> "DreamerAgentModel":
        """Make an agent with untrained heads for a world, which it contains from then on.

        Args:
            world: the world.
            agent_config: fields of [`DreamerAgentConfig`] that differ from their defaults.

        Raises:
            ValueError: an agent cannot act in this world, or the fields are invalid.
        """
        # A composite config resets the attention implementation of its parts unless it gets them.
        parts = {"tokenizer_config": world.tokenizer.config, "dynamics_config": world.dynamics.config}
        attention = {"world_config": {name: part._attn_implementation for name, part in parts.items()}}
        config = DreamerAgentConfig.from_dict({"world_config": world.config, **agent_config})
        config._attn_implementation = attention
        agent = cls(config, world).to(device=world.device, dtype=world.dtype)
        agent.keep_policy_as_prior()
        return agent

    def adjust_generation_fn(self, *args, **kwargs) -> None:
        """Load `generation_config`, for the agent and its world; see the base class."""
        super().adjust_generation_fn(*args, **kwargs)
        self.world.generation_config = self.world.dynamics.generation_config = self.generation_config

    def rollout_schedule(
        self, num_inference_steps: int | None = None, context_signal_level: float | None = None
    ) -> RolloutSchedule:
        """Return the passes of a frame; see [`DreamerWorldModel.rollout_schedule`]."""
        return self.world.rollout_schedule(num_inference_steps, context_signal_level)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DreamerAgentTokens):
            init.normal_(module.base)
        elif isinstance(module, DreamerAgentEye):
            init.normal_(module.places, std=0.1)
        elif isinstance(module, HeadOutput):
            init.zeros_(module.weight)

    def get_input_embeddings(self) -> nn.Module:
        """Return the projection of latents into tokens."""
        return self.world.dynamics.get_input_embeddings()

    def _complete_folder(self, folder: Path) -> None:
        """Also keep the start frames and the video processor that came with the agent, or with its world."""
        super()._complete_folder(folder)
        self.world.copy_companions(folder, self.name_or_path or self.world.name_or_path)

    @property
    def value_bins(self) -> torch.Tensor:
        """The bins of rewards and values, float32 (M,)."""
        return symexp_bins(self.config.num_value_bins, float(self.config.value_range), self.device)

    def known(self, raw_states: torch.Tensor) -> torch.Tensor:
        """Return what the agent knows at frames (..., K), from what it has of them (..., D+2F), see
        `agent_rows.raw_agent_states`."""
        token, seen = raw_states.tensor_split([self.config.dynamics_config.hidden_size], dim=-1)
        return torch.cat([token, self.eye(seen).to(token.dtype)], dim=-1)

    def rewards_of(self, agent_states: torch.Tensor) -> torch.Tensor:
        """Return the expected reward (...) of the frame at which the agent knows `agent_states` (..., K)."""
        return two_hot_mean(self.reward_head.nearest(agent_states), self.value_bins)

    def values_of(self, agent_states: torch.Tensor) -> torch.Tensor:
        """Return the expected discounted rewards (...) after the frame of `agent_states` (..., K)."""
        return two_hot_mean(self.value_head.nearest(agent_states), self.value_bins)

    def continues_of(self, agent_states: torch.Tensor) -> torch.Tensor:
        """Return the probability (...) that the episode continues after the frame; 1 without a continue head."""
        if self.continue_head is None:
            return torch.ones(agent_states.shape[:-1], device=agent_states.device)
        return self.continue_head.nearest(agent_states)[..., 0].sigmoid()

    def keep_policy_as_prior(self) -> None:
        """Make the present policy the prior: at the end of behavior cloning, before learning in dreams begins."""
        self.prior_head.load_state_dict(self.policy_head.state_dict())

    @can_return_tuple
    def forward(
        self,
        latents: torch.FloatTensor,
        signal_level_ids: torch.LongTensor,
        step_size_ids: torch.LongTensor,
        actions: torch.FloatTensor | None = None,
        action_mask: torch.BoolTensor | None = None,
        tasks: Tasks = None,
        past_key_values: DreamerCache | None = None,
        num_commit_frames: int | None = None,
        num_copied_frames: int | None = None,
        states: torch.FloatTensor | None = None,
        state_mask: torch.BoolTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DreamerAgentOutput:
        """Predict clean latents, actions, rewards and values, in one pass of the dynamics model.

        Args:
            latents, signal_level_ids, step_size_ids, actions, action_mask, past_key_values, num_commit_frames,
            num_copied_frames, states, state_mask: as in [`DreamerDynamicsModel.forward`]. With `num_copied_frames` the
                heads read the context only: it stands where a rollout has it, at the context signal level.
            tasks (`int`, `str` or `torch.Tensor`, *optional*): what the agent is to do: number or name of a task,
                `(B,)` or `(B, T)` numbers, or vectors (`config.task_dim`). An agent of one task needs none.

        Raises:
            ValueError: if a shape does not fit the config, or the agent does not know a task.
        """
        batch, frames = latents.shape[:2]
        output = self.world.dynamics(
            latents,
            signal_level_ids,
            step_size_ids,
            actions,
            action_mask,
            past_key_values,
            num_commit_frames,
            num_copied_frames,
            states,
            state_mask,
            self.agent_tokens(tasks, batch, frames),
            **kwargs,
        )
        raw = raw_agent_states(output.agent_states, output.latents, output.states)
        agent_states = self.known(raw[:, :num_copied_frames])
        continues = None if self.continue_head is None else self.continue_head.nearest(agent_states)[..., 0]
        return DreamerAgentOutput(
            latents=output.latents,
            states=output.states,
            agent_states=agent_states,
            policy_logits=self.policy_head(agent_states),
            reward_logits=self.reward_head(agent_states),
            value_logits=self.value_head.nearest(agent_states),
            continue_logits=continues,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


__all__ = ["DreamerAgentModel", "DreamerAgentOutput"]
