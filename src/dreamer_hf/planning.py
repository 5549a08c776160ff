"""Planning in a dream with the cross-entropy method (Rubinstein 1999), all candidates in one batch.

Shapes: N candidates, T steps of the horizon, A action components, H, W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .action_space import ActionSpace
from .latent_rollout import DreamerLatentRollout
from .rollout import DreamerRollout

Cost = Callable[[Any], torch.Tensor]
"""Frames (N, 3, H, W) in [0, 1] -> cost (N,) of being there; with `cost_reads="rollout"`, of the rollout of N rows."""


@dataclass(frozen=True)
class Plan:
    """The result of planning.

    Attributes:
        actions: float32 (T, A), raw.
        cost: mean cost per step of the best futures (the elites of the last round).
    """

    actions: np.ndarray
    cost: float


class CrossEntropyPlanner:
    """Tries many futures of a dream, keeps the cheapest, tries more like them, and so on.

    Each round dreams N futures as N rows of one rollout (`rollout.clone(rows=[0] * N)`). All have the same noise, so
    that they differ only by their actions; the next round has other noise, so that no plan relies on it. The next call
    starts from the rest of the last plan: call `plan`, execute the first action, call `plan` again.

    Args:
        space: action space of the world; candidates stay in its range.
        cost: cost of one step.
        horizon: T.
        num_candidates: N.
        num_elites: number of candidates that the next round resembles.
        num_rounds: rounds of a plan.
        smoothness: correlation of the noise of successive actions, in [0, 1).
        seed: seed of everything that is random here. The noise of the dream itself is not used.
        cost_reads: what the cost takes: the "frames" of the step, or the "rollout" after it, as that of an agent does:
            `lambda rollout: -agent.rewards(rollout)`.

    Raises:
        ValueError: impossible numbers.
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
        cost_reads: str = "frames",
    ):
        if cost_reads not in ("frames", "rollout"):
            raise ValueError(f"expected cost_reads to be 'frames' or 'rollout', got {cost_reads!r}.")
        if min(horizon, num_rounds) < 1 or not 1 <= num_elites < num_candidates or not 0 <= smoothness < 1:
            raise ValueError(
                f"cannot plan with horizon={horizon}, num_rounds={num_rounds}, num_elites={num_elites}, "
                f"num_candidates={num_candidates} and smoothness={smoothness}: expected positive numbers, fewer "
                "elites than candidates, and a smoothness in [0, 1)."
            )
        self.space, self.cost, self.cost_reads = space, cost, cost_reads
        self.horizon, self.num_candidates = horizon, num_candidates
        self.num_elites, self.num_rounds, self.smoothness = num_elites, num_rounds, smoothness
        self._rng = np.random.default_rng(seed)
        self.forget()

    def forget(self) -> None:
        """Forget the rest of the last plan, for example because an episode starts."""
        self._mean = np.tile(self.space.rest, (self.horizon, 1))

    def plan(self, rollout: DreamerRollout | DreamerLatentRollout) -> Plan:
        """Plan from the current state of a dream of one row, which does not change.

        A rollout in latent space is enough, and faster, for a cost that reads the rollout.

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
        return Plan(self.space.valid(mean), float(costs[best].mean()))

    @torch.no_grad()
    def costs(
        self, rollout: DreamerRollout | DreamerLatentRollout, candidates: np.ndarray, noise_seed: int = 0
    ) -> np.ndarray:
        """Return the mean cost per step (N,) of candidate futures (N, T, A), dreamed with the same noise."""
        futures = rollout.clone(rows=[0] * len(candidates))
        latent_rollout = getattr(futures, "latent_rollout", futures)
        latent_rollout.generator = [torch.Generator().manual_seed(noise_seed) for _ in candidates]
        steps = []
        for actions in candidates.swapaxes(0, 1):
            output = futures.step(actions)
            steps.append(self.cost(output.pixel_values if self.cost_reads == "frames" else futures))
        return torch.stack(steps).mean(dim=0).float().cpu().numpy()

    def _draw(self, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Draw candidates (N, T, A), smooth in time, around a mean (T, A). The first one is the mean itself."""
        noise = self._rng.standard_normal((self.num_candidates, *mean.shape))
        for step in range(1, self.horizon):
            fresh = np.sqrt(1 - self.smoothness**2) * noise[:, step]
            noise[:, step] = self.smoothness * noise[:, step - 1] + fresh
        noise[0] = 0
        return self.space.valid(mean + spread * noise)


__all__ = ["CrossEntropyPlanner", "Plan"]
