"""Imagined trajectories: an agent acts in dreams, and judges them (arXiv 2509.24527, section 4.1).

Shapes: B trajectories, C context frames, H steps, N choices of an action, a action width, K what the agent knows, N_z
latent tokens, d_z latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from .agent_episode import AgentEpisode
from .latent_rollout import on_ordinary_tensors


@dataclass
class ImaginedTrajectories(ModelOutput):
    """What an agent did and expects in B dreams of H steps. State 0 is that of the last context frame.

    Args:
        agent_states (`torch.FloatTensor` of shape `(B, H+1, K)`): what the agent knows at each state.
        actions (`torch.FloatTensor` of shape `(B, H, a)`): raw; `actions[:, t]` was chosen at state t.
        action_choices (`torch.Tensor` of shape `(B, H, N)`): the same as choices, see `ActionDistribution`.
        rewards (`torch.FloatTensor` of shape `(B, H)`): `rewards[:, t]` is what arriving at state t+1 was worth.
        continues (`torch.FloatTensor` of shape `(B, H)`): probability that the episode continues after state t+1.
        values (`torch.FloatTensor` of shape `(B, H+1)`): expected discounted rewards after each state.
        latents (`torch.FloatTensor` of shape `(B, H, N_z, d_z)`, *optional*): the dreamed frames, if asked for.
    """

    agent_states: torch.FloatTensor | None = None
    actions: torch.FloatTensor | None = None
    action_choices: torch.Tensor | None = None
    rewards: torch.FloatTensor | None = None
    continues: torch.FloatTensor | None = None
    values: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None


@on_ordinary_tensors
def imagine(
    episode: AgentEpisode,
    horizon: int,
    deterministic: bool = False,
    use_prior: bool = False,
    return_latents: bool = False,
) -> ImaginedTrajectories:
    """Let an agent act in its dreams for some steps; the episode ends where they do.

    Args:
        episode: the dreams, with a past.
        horizon: H.
        deterministic: take the most likely actions. Defaults to False: draw them.
        use_prior: whether the prior acts instead of the policy. Defaults to False.
        return_latents: whether to return the dreamed frames. Defaults to False.

    Raises:
        ValueError: a horizon below 1.
    """
    if horizon < 1:
        raise ValueError(f"expected a horizon of at least 1, got {horizon}.")
    agent = episode.agent
    states, choices, actions, latents = [episode.agent_states], [], [], []
    for _ in range(horizon):
        choices.append(episode.choose(deterministic, use_prior=use_prior))
        actions.append(agent.actions.decode(choices[-1]))
        output = episode.dream(actions[-1])
        states.append(episode.agent_states)
        if return_latents:
            latents.append(output.latents)
    states = torch.stack(states, dim=1)
    return ImaginedTrajectories(
        agent_states=states,
        actions=torch.stack(actions, dim=1),
        action_choices=torch.stack(choices, dim=1),
        rewards=agent.rewards_of(states[:, 1:]),
        continues=agent.continues_of(states[:, 1:]),
        values=agent.values_of(states),
        latents=torch.stack(latents, dim=1) if return_latents else None,
    )


__all__ = ["ImaginedTrajectories", "imagine"]
