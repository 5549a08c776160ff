"""An agent's reward head as the reward of dream environments.

Shapes: N rows, C context frames, H, W pixels, N_z latent tokens, d_z latent channels, a action width.
"""

from __future__ import annotations

import numpy as np
import torch

from .agent_episode import AgentEpisode
from .agent_heads import Tasks
from .latent_rollout import DreamerLatentRollout, on_ordinary_tensors
from .rollout_frames import Context, make_context


class AgentReward:
    """Rewards of the steps of a dream environment, for its option `reward_fn`.

    It follows the dreams: each step costs one pass of the dynamics model, which shows the agent the frame and the
    action that led to it. Rows that start again are noticed by their step number. One object serves one environment.

    Args:
        agent: the `DreamerAgentModel`, of the world of the environment.
        tasks: number, name or vector of the task, the same in every row.
        seed: seed of the noise with which frames become part of the past. Defaults to 0.
    """

    def __init__(self, agent, tasks: Tasks = None, seed: int = 0):
        self.agent, self.tasks = agent, tasks
        self._generator = torch.Generator().manual_seed(seed)
        self._episode: AgentEpisode | None = None
        agent.agent_tokens(tasks, 1, 1)  # refuses an unknown task here, not in the first step

    @on_ordinary_tensors
    def __call__(self, transition) -> np.ndarray:
        """Return the rewards (N,) float32 of a `DreamTransition` of N rows."""
        steps, device = np.asarray(transition.steps), self.agent.device
        rows = np.flatnonzero(steps <= 1)
        if self._episode is None or self._episode.batch_size != len(steps):
            rows = np.arange(len(steps))
            self._episode = AgentEpisode(self.agent, self._rollout(transition.previous_frames))
        elif len(rows) > 0:
            self._episode.restart_from(self._context(transition.previous_frames[rows]), rows.tolist())
        latents = torch.as_tensor(transition.latents).to(device).float()
        states = self._states(transition)
        self._episode.observe_latents(latents, torch.from_numpy(transition.actions), None, states)
        return self._episode.rewards.cpu().numpy()

    def _rollout(self, frames: np.ndarray) -> DreamerLatentRollout:
        schedule = self.agent.rollout_schedule()
        return DreamerLatentRollout(self.agent.world.dynamics, self._context(frames), schedule, self._generator)

    def _context(self, frames: np.ndarray) -> Context:
        """Return the context of one frame, uint8 (R, H, W, 3) with several cameras side by side."""
        world = self.agent.world
        cameras = self.agent.config.dynamics_config.num_cameras
        frames = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)[:, None]
        if cameras > 1:
            frames = frames.unflatten(-1, (cameras, -1)).movedim(-2, 2)
        latents = world.encode(frames).latents.float()
        tokens = self.agent.agent_tokens(self.tasks, len(frames), 1)
        return make_context(latents, None, None, world.dynamics, agent_tokens=tokens)

    def _states(self, transition) -> torch.Tensor | None:
        return torch.from_numpy(transition.states) if transition.states.shape[1] else None


__all__ = ["AgentReward"]
