"""Episodes of a policy in the gym-pusht simulator, scored by reward functions: what an agent is really worth.

Shapes: B episodes, T steps, S side of a frame, a action width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ..action_space import ActionSpace
from ..planning import CrossEntropyPlanner
from ..reward_signal import RewardFunction
from ..start_frames import StartFrames
from .simulator import PushTSimulator


class RealPolicy(Protocol):
    """What acts in B simulators at the same time."""

    def begin(self, starts: StartFrames, simulators: Sequence[PushTSimulator]) -> None:
        """Look at the first frames of B episodes; scripts may look at the simulators."""

    def act(self) -> np.ndarray:
        """Return the next actions, float32 (B,a), raw."""

    def observe(self, frames: np.ndarray, actions: np.ndarray) -> None:
        """Look at the next frames, uint8 (B,S,S,3), which the actions (B,a) led to."""


class AgentPolicy:
    """An agent as a policy of the simulator.

    Args:
        agent: a `DreamerAgentModel` in eval mode.
        tasks: number of the task of each episode.
        deterministic: whether to take the most likely action instead of drawing one. Defaults to False.
        seed: of the noise and of the actions. Defaults to 0.
    """

    def __init__(self, agent, tasks: Sequence[int], deterministic: bool = False, seed: int = 0):
        self.agent, self.tasks, self.deterministic, self.seed = agent, torch.as_tensor(tasks), deterministic, seed

    def begin(self, starts: StartFrames, simulators: Sequence[PushTSimulator]) -> None:
        generators = [torch.Generator().manual_seed(self.seed * 1_000_003 + row) for row in range(len(starts))]
        given = starts.pixel_values_videos, starts.actions, starts.action_mask, self.tasks
        self._episode = self.agent.start(*given, generator=generators, decode=False)

    def act(self) -> np.ndarray:
        return self._episode.act(self.deterministic).cpu().numpy()

    def observe(self, frames: np.ndarray, actions: np.ndarray) -> None:
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
        self._episode.observe(pixels, torch.from_numpy(actions))


class PlannerPolicy(AgentPolicy):
    """Plans every action in dreams, with what an agent's reward head makes of them; its policy is not used.

    Args:
        agent, tasks, seed: as in `AgentPolicy`.
        horizon, num_candidates, num_rounds: of the `CrossEntropyPlanner` of each episode.
    """

    def __init__(
        self,
        agent,
        tasks: Sequence[int],
        seed: int = 0,
        horizon: int = 8,
        num_candidates: int = 32,
        num_rounds: int = 2,
    ):
        super().__init__(agent, tasks, seed=seed)
        space = ActionSpace.from_config(agent.config.dynamics_config)
        numbers = horizon, num_candidates, max(1, num_candidates // 8), num_rounds
        self._planners = [
            CrossEntropyPlanner(
                space, lambda rollout: -agent.rewards(rollout), *numbers, seed=seed + row, cost_reads="rollout"
            )
            for row in range(len(tasks))
        ]

    def act(self) -> np.ndarray:
        rows = (self._episode.clone(rows=[row]).rollout for row in range(len(self._planners)))
        return np.stack([planner.plan(rollout).actions[0] for planner, rollout in zip(self._planners, rows)])


@dataclass(frozen=True)
class RealEpisodes:
    """What happened in B episodes of T steps.

    Attributes:
        rewards: float32 (B, T+1), of the start and of what each step led to.
        successes: bool (B, T+1).
        frames: uint8 (B, T+1, S, S, 3).
    """

    rewards: np.ndarray
    successes: np.ndarray
    frames: np.ndarray

    @property
    def mean_reward(self) -> np.ndarray:
        """(B,) mean reward of the steps."""
        return self.rewards[:, 1:].mean(axis=1)

    @property
    def ends_solved(self) -> np.ndarray:
        """(B,) whether the task is solved at the end."""
        return self.successes[:, -1]


def run_episodes(
    policy: RealPolicy,
    world_config,
    functions: Sequence[RewardFunction],
    seeds: Sequence[int],
    num_steps: int = 60,
) -> RealEpisodes:
    """Let a policy act in B simulators, from the simulator's own starts.

    Args:
        policy: what acts.
        world_config: the `DreamerWorldConfig`, for the size of frames, their rate, and the actions and their ranges.
        functions: the reward function of each episode.
        seeds: of the starts. The same seed starts the same episode.
        num_steps: T. Defaults to 60.

    Raises:
        ValueError: the world is not one of PushT, or gym-pusht is not installed.
    """
    space, config = ActionSpace.from_config(world_config.dynamics_config), world_config.dynamics_config
    if space.size != 2:
        raise ValueError(f"PushT has 2 actions but this world has {space.size}: choose an agent of PushT.")
    side = world_config.tokenizer_config.frame_size[0]
    simulators = [PushTSimulator(side, space.is_relative, config.fps) for _ in seeds]
    starts = [simulator.reset(int(seed), num_frames=1) for simulator, seed in zip(simulators, seeds, strict=True)]
    names = "pixel_values_videos", "actions", "action_mask"
    starts = StartFrames(*(torch.cat([getattr(start, name) for start in starts]) for name in names))
    frames, states = [_frames(simulators)], [_states(simulators)]
    policy.begin(starts, simulators)
    for _ in range(num_steps):
        actions = np.clip(policy.act(), space.low, space.high).astype(np.float32)
        for simulator, action in zip(simulators, actions):
            simulator.step(action)
        frames.append(_frames(simulators))
        states.append(_states(simulators))
        policy.observe(frames[-1], actions)
    for simulator in simulators:
        simulator.close()
    frames, states = np.stack(frames, axis=1), np.stack(states, axis=1)
    signals = [function(video, state) for function, video, state in zip(functions, frames, states)]
    rewards, successes = (np.stack([getattr(each, part) for each in signals]) for part in ("rewards", "successes"))
    return RealEpisodes(rewards, successes, frames)


def _frames(simulators: Sequence[PushTSimulator]) -> np.ndarray:
    return np.stack([simulator.render() for simulator in simulators])


def _states(simulators: Sequence[PushTSimulator]) -> np.ndarray:
    """Return the states (B,5): agent x, y, block x, y, angle."""
    return np.stack([np.concatenate([each.agent, each.block_pose]) for each in simulators])


__all__ = ["AgentPolicy", "PlannerPolicy", "RealEpisodes", "RealPolicy", "run_episodes"]
