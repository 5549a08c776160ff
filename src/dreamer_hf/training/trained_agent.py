"""An agent as `Trainer` sees it: one module for every kind of pass, so that processes share the gradients of all.

Shapes: B windows, T frames, K what an agent knows.
"""

import copy

import torch
from torch import nn

from ..modeling_dreamer_agent import DreamerAgentModel, DreamerAgentOutput
from ..modeling_dreamer_dynamics import DreamerDynamicsModel
from .frozen_world import WorldMemory, agent_states

PREFIX, SLOW_VALUE = "agent.", "slow_value."


class TrainedAgent(nn.Module):
    """Wraps an agent for training.

    Args:
        agent: the agent.
        with_slow_value: whether to keep a slow copy of the value head, for learning in dreams. Defaults to False.
    """

    def __init__(self, agent: DreamerAgentModel, with_slow_value: bool = False):
        super().__init__()
        self.agent = agent
        self.slow_value = copy.deepcopy(agent.value_head).requires_grad_(False) if with_slow_value else None

    @property
    def config(self):
        """The agent's config."""
        return self.agent.config

    @torch.no_grad()
    def update_slow_value(self, decay: float) -> None:
        """Let the slow copy of the value head, if there is one, follow it: `decay` is the share that it keeps."""
        if self.slow_value is None:
            return
        for slow, fast in zip(self.slow_value.parameters(), self.agent.value_head.parameters()):
            slow.lerp_(fast, 1 - decay)

    def activation_checkpointing_enable(self) -> None:
        """Recompute activations in the backward pass."""
        self.agent.activation_checkpointing_enable()

    def forward(
        self,
        latents: torch.Tensor | None = None,
        world_memory: WorldMemory | None = None,
        agent_states: torch.Tensor | None = None,
        **inputs,
    ) -> DreamerAgentOutput | tuple[torch.Tensor, torch.Tensor]:
        """Run the agent.

        Args:
            latents, inputs: as in `DreamerAgentModel.forward`, which then runs; or
            world_memory: what a frozen world makes of windows, see `frozen_world`, with `tasks` (B,); or
            agent_states: (..., K) what the agent knows. Then the logits of policy (..., W) and value (..., M), both
                of distance 0, are returned.
        """
        if agent_states is not None:
            return self.agent.policy_head.nearest(agent_states), self.agent.value_head.nearest(agent_states)
        if world_memory is not None:
            return run_heads(self.agent, world_memory, inputs["tasks"])
        return self.agent(latents, **inputs)


def run_heads(agent: DreamerAgentModel, memory: WorldMemory, tasks: torch.Tensor) -> DreamerAgentOutput:
    """Return what the heads make of windows of a frozen world; arguments as in `frozen_world.agent_states`."""
    states = agent_states(agent, memory, tasks)
    head = agent.continue_head
    return DreamerAgentOutput(
        agent_states=states,
        policy_logits=agent.policy_head(states),
        reward_logits=agent.reward_head(states),
        continue_logits=None if head is None else head.nearest(states)[..., 0],
    )


def agent_weights(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of the agent among those of a `TrainedAgent`; others are returned unchanged."""
    kept = {name: value for name, value in state_dict.items() if not name.startswith(SLOW_VALUE)}
    return {name.removeprefix(PREFIX): value for name, value in kept.items()}


class PassWithAgent:
    """Takes the place of a dynamics model in its losses, and runs the agent in the pass that is learned from.

    Passes without gradient (bootstrap targets, predicted context) need no agent tokens.

    Args:
        model: the `TrainedAgent`, which may be wrapped for distributed training.
        dynamics: the dynamics model in it.
        tasks: (B,) int64.

    Attributes:
        output: the agent's output in the last pass with gradient.
    """

    def __init__(self, model: nn.Module, dynamics: DreamerDynamicsModel, tasks: torch.Tensor):
        self.model, self.dynamics, self.tasks = model, dynamics, tasks
        self.config, self.output = dynamics.config, None

    @property
    def training(self) -> bool:
        """Whether the dynamics model is in training mode."""
        return self.dynamics.training

    def eval(self) -> None:
        """Put the dynamics model into evaluation mode."""
        self.dynamics.eval()

    def train(self, mode: bool = True) -> None:
        """Put the dynamics model into training mode, or out of it."""
        self.dynamics.train(mode)

    def __call__(self, latents: torch.Tensor, **conditions) -> DreamerAgentOutput:
        if not torch.is_grad_enabled():
            return self.dynamics(latents, **conditions)
        self.output = self.model(latents, tasks=self.tasks, **conditions)
        return self.output


__all__ = ["PassWithAgent", "TrainedAgent", "agent_weights", "run_heads"]
