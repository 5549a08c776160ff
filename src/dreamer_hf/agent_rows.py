"""What a rollout holds of an agent in each of its rows.

Shapes: B rows, R of them, T frames, G agent tokens, D hidden size, N_z latent tokens, d_z latent channels, S state
components, F what the agent sees of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class AgentRows:
    """An agent's tokens and what they became, in every row of a rollout.

    Attributes:
        tokens: (B,1,G,D), the agent tokens of the next frames, which say what the task is.
        states: (B,D+2F), what the agent has of the last committed frame, see `raw_agent_states`.
    """

    tokens: torch.Tensor
    states: torch.Tensor

    @property
    def seen(self) -> torch.Tensor:
        """What the world predicted of the last committed frame, (B,F)."""
        return self.states[:, self.tokens.shape[-1] :].chunk(2, dim=-1)[0]

    def select(self, rows: torch.Tensor) -> AgentRows:
        """Return some rows."""
        return AgentRows(self.tokens[rows], self.states[rows])

    def with_rows(self, rows: torch.Tensor, new: AgentRows) -> AgentRows:
        """Return the same with R rows replaced by those of `new`."""
        return AgentRows(
            self.tokens.index_copy(0, rows, new.tokens.to(self.tokens.dtype)),
            self.states.index_copy(0, rows, new.states.to(self.states.dtype)),
        )

    @staticmethod
    def join(parts: Sequence[AgentRows]) -> AgentRows:
        """Return the rows of several batches as one batch."""
        return AgentRows(torch.cat([part.tokens for part in parts]), torch.cat([part.states for part in parts]))


def raw_agent_states(
    agent_tokens: torch.Tensor,
    latents: torch.Tensor,
    states: torch.Tensor | None = None,
    seen_before: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return what an agent has of each frame, (B,T,D+2F): what its tokens became, and what the world predicts of the
    frame and of the one before it.

    No gradient flows into the prediction: an agent does not change how the world looks to it.

    Args:
        agent_tokens: (B,T,G,D), output of the transformer.
        latents: (B,T,N_z,d_z), the predicted clean latents.
        states: (B,T,S), the predicted clean normalized states, if the world has a state.
        seen_before: (B,F), what the world predicted of the frame before the first one; where there is none, the first
            frame takes its place.
    """
    seen = [latents.detach().flatten(2)] if states is None else [latents.detach().flatten(2), states.detach()]
    seen = torch.cat([part.to(agent_tokens.dtype) for part in seen], dim=-1)
    first = seen[:, :1] if seen_before is None else seen_before[:, None].to(seen.dtype)
    return torch.cat([agent_tokens.mean(dim=2), seen, torch.cat([first, seen[:, :-1]], dim=1)], dim=-1)


__all__ = ["AgentRows", "raw_agent_states"]
