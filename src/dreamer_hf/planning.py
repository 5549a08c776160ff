"""Planning in a dream: the cross-entropy method (Rubinstein 1999), all candidates in one batch.

Shapes: N candidates, T steps of the horizon, A action components, H, W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from .action_space import ActionSpace
from .rollout import DreamerRollout

Cost = Callable[[torch.Tensor], torch.Tensor]
"""Dreamt frames (N,3,H,W) in [0, 1] -> cost (N,) of being there."""


@dataclass(frozen=True)
class Plan:
    """What the planner would do.

    Attributes:
        actions: float32 (T,A), raw.
        cost: mean cost a step of the best futures (the elites of the last round).
    """

    actions: np.ndarray
    cost: float


class CrossEntropyPlanner:
    """Tries many futures of a dream, keeps the cheapest, tries more like them, and so on.

    Each round dreams N futures as N rows of one rollout (`rollout.clone(rows=[0] * N)`), all with the same noise, so that
    they differ by their actions alone; the next round's noise is another, so that no plan counts on one. What was planned for later is where the next call begins: call `plan`, do the first
    action, call `plan` again.

    Args:
        space: the world's actions; candidates stay in its range.
        cost: of the frames of one step.
        horizon: T.
        num_candidates: N.
        num_elites: how many of them the next round resembles.
        num_rounds: rounds of a plan.
        smoothness: correlation of the noise of successive actions, in [0, 1): hands do not tremble.
        seed: of all that is random here; the dream that is planned in is not asked for its noise.

    Raises:
        ValueError: numbers with which nothing can be chosen.
    """

    def __init__(
        self,
        space: ActionSpace,
        cost: Cost,
        horizon: int = 8,
        num_candidates: int = 64,
        num_elites: int = 8,
        num_rounds: int = 3,
        smoothness: float = 0.7,
        seed: int = 0,
    ):
        if min(horizon, num_rounds) < 1 or not 1 <= num_elites < num_candidates or not 0 <= smoothness < 1:
            raise ValueError(
                f"cannot plan with horizon={horizon}, num_rounds={num_rounds}, num_elites={num_elites} of "
                f"num_candidates={num_candidates} and smoothness={smoothness}: give positive numbers, fewer elites than "
                "candidates, and a smoothness below 1."
            )
        self.space, self.cost = space, cost
        self.horizon, self.num_candidates = horizon, num_candidates
        self.num_elites, self.num_rounds, self.smoothness = num_elites, num_rounds, smoothness
        self._rng = np.random.default_rng(seed)
        self.forget()

    def forget(self) -> None:
        """Forgets what was planned for later: something new begins."""
        self._mean = np.tile(self.space.rest, (self.horizon, 1))

    def plan(self, rollout: DreamerRollout) -> Plan:
        """Plans from where a dream of one row stands, which it leaves as it is.

        Raises:
            ValueError: the rollout has more than one row.
        """
        if rollout.batch_size != 1:
            raise ValueError(f"the rollout has {rollout.batch_size} rows: plan from one, rollout.clone(rows=[...]).")
        mean, spread = self._mean, np.tile((self.space.high - self.space.low) / 4, (self.horizon, 1))
        for _ in range(self.num_rounds):
            candidates = self._draw(mean, spread)
            costs = self.costs(rollout, candidates, noise_seed=int(self._rng.integers(2**63)))
            best = np.argsort(costs)[: self.num_elites]
            mean, spread = candidates[best].mean(axis=0), candidates[best].std(axis=0)
        self._mean = np.concatenate([mean[1:], mean[-1:]])
        return Plan(self._valid(mean), float(costs[best].mean()))

    @torch.no_grad()
    def costs(self, rollout: DreamerRollout, candidates: np.ndarray, noise_seed: int = 0) -> np.ndarray:
        """Mean cost a step (N,) of candidate futures (N,T,A), dreamt side by side with the same noise."""
        futures = rollout.clone(rows=[0] * len(candidates))
        futures.latent_rollout.generator = [torch.Generator().manual_seed(noise_seed) for _ in candidates]
        actions = torch.from_numpy(candidates).to(rollout.world.device)
        steps = [self.cost(futures.step(actions[:, step]).pixel_values) for step in range(candidates.shape[1])]
        return torch.stack(steps).mean(dim=0).float().cpu().numpy()

    def _draw(self, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Candidates (N,T,A) about a mean (T,A), smooth in time; the first is the mean itself."""
        noise = self._rng.standard_normal((self.num_candidates, *mean.shape))
        for step in range(1, self.horizon):
            fresh = np.sqrt(1 - self.smoothness**2) * noise[:, step]
            noise[:, step] = self.smoothness * noise[:, step - 1] + fresh
        noise[0] = 0
        return self._valid(mean + spread * noise)

    def _valid(self, actions: np.ndarray) -> np.ndarray:
        return self.space.valid(actions)


__all__ = ["CrossEntropyPlanner", "Plan"]
