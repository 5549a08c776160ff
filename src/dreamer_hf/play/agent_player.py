"""An agent that plays: in the dream, in the simulator next to it, and taking turns with a person.

Shapes: A action components, H, W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..dreams import Dream
from ..seeded_noise import SeededNoise
from .action_sources import ActionSource

if TYPE_CHECKING:
    from ..agent_episode import AgentEpisode
    from ..modeling_dreamer_agent import DreamerAgentModel
    from ..pusht.compare import RealPushT

AGENT_ACTS, PERSON_ACTS = "the agent acts", "you act"


class AgentActions:
    """The actions of an agent in a dream or, after `hand_over`, those of a person or a script.

    The agent watches every frame, also while the person acts. After a reset or a rewind it knows only the
    frame that is shown.

    Args:
        agent: the agent, of the world of the dream.
        dream: the dream that it plays.
        person: who acts after `hand_over`.
        task: number or name of the task.
        deterministic: take the most likely actions instead of drawing them.
        seed: seed of the agent's noise.

    Attributes:
        agent_acts: whether the agent acts, not the person; at first it does.
    """

    def __init__(
        self,
        agent: DreamerAgentModel,
        dream: Dream,
        person: ActionSource,
        task: int | str = 0,
        deterministic: bool = False,
        seed: int = 0,
    ):
        self.agent, self.person, self.task, self.deterministic = agent, person, task, deterministic
        self.agent_acts = True
        self._dream, self._noise = dream, [SeededNoise(seed)]
        self._episode: AgentEpisode | None = None
        self._step = 0
        agent.agent_tokens(task, 1, 1)  # refuses an unknown task before a window opens

    @property
    def actor(self) -> str:
        """Who acts, as the window shows it."""
        return AGENT_ACTS if self.agent_acts else PERSON_ACTS

    @property
    def reward(self) -> float:
        """What the frame that is shown is worth for the task, as the agent sees it."""
        self._look()
        return float(self._episode.rewards[0])

    def action(self, step: int) -> np.ndarray | None:
        self._look()
        return self.choose(self._episode) if self.agent_acts else self.person.action(step)

    def resume_from(self, action: np.ndarray) -> None:
        self._episode = None
        self.person.resume_from(action)

    def hand_over(self) -> None:
        """Let the other one act: the person, who continues from the last action, or the agent."""
        self.agent_acts = not self.agent_acts
        self.person.resume_from(self._dream.action)

    def choose(self, episode: AgentEpisode) -> np.ndarray:
        """Return the agent's action (A,) float32 in an episode of one row."""
        return episode.act(self.deterministic)[0].cpu().numpy()

    def _look(self) -> None:
        """Show the agent the frames of the dream that it has not seen."""
        dream = self._dream
        if self._episode is not None and dream.step == self._step:
            return
        state = None if not self.agent.config.dynamics_config.state_dim else torch.from_numpy(dream.state)[None]
        latents = dream.latents[None].float()
        if self._episode is not None and dream.step == self._step + 1:
            self._episode.observe_latents(latents, torch.from_numpy(dream.action)[None], states=state)
        else:
            states = None if state is None else state[:, None]
            self._episode = self.agent.start_from_latents(
                latents[:, None], tasks=self.task, generator=self._noise, states=states
            )
        self._step = dream.step


class AgentInSimulator:
    """The simulator next to a dream, in which the agent acts by what it sees there; a `SideBySide`.

    While a person acts, the simulator follows the dream's actions.

    Args:
        real: the simulator.
        actions: of the dream, which say who acts.
    """

    def __init__(self, real: RealPushT, actions: AgentActions):
        self.real, self._actions = real, actions

    @property
    def frame(self) -> np.ndarray:
        """uint8 RGB (H, W, 3), what the simulator shows."""
        return self.real.frame

    def begin(self, start_index: int) -> None:
        """Start where the dream starts."""
        self.real.begin(start_index)
        self._start()

    def advance(self, action: np.ndarray, dreamed: np.ndarray) -> None:
        """Execute one action: the agent's own, or that of the person, `action` (A,)."""
        if self._actions.agent_acts:
            action = self._actions.choose(self._episode)
        self.real.advance(action, dreamed)
        self._episode.observe(_as_frames(self.real.frame), torch.from_numpy(action)[None])

    def rewind(self, step: int) -> None:
        """Return to the state after `step` steps."""
        self.real.rewind(step)
        self._start()

    def status(self) -> str:
        """Return what the simulator's frame is worth for the task, as the agent sees it."""
        return f"reward in the simulator {float(self._episode.rewards[0]):.2f}"

    def _start(self) -> None:
        self._episode = self._actions.agent.start(
            _as_frames(self.real.frame)[:, None], tasks=self._actions.task, generator=[SeededNoise(0)], decode=False
        )


def _as_frames(frame: np.ndarray) -> torch.Tensor:
    """Return a frame uint8 (H, W, 3) as a batch of one, (1, 3, H, W)."""
    return torch.from_numpy(frame).permute(2, 0, 1)[None]


__all__ = ["AGENT_ACTS", "PERSON_ACTS", "AgentActions", "AgentInSimulator"]
