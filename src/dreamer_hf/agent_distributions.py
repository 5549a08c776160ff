"""The distribution of an agent's actions: what a policy head's logits mean, and actions as classes.

An action is described by C independent choices. A continuous component is one choice among bins, or all of them are
one choice among the cells of a grid; with `action_distribution="normal"`, each is a value with a normal distribution.
A categorical component is a choice among its classes, and a binary one is a choice between two.

Bins rather than a density [arXiv 2509.24527 has bins for the mouse]: log-probability, entropy and KL divergence are
exact sums; several modes stay apart; and the policy loss, which pushes probabilities down, ends at 0.

Shapes: a action width, C choices, W logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .action_space import ActionSpace
from .configuration_dreamer_agent import DreamerAgentConfig

SMALLEST_STD, LARGEST_STD = 0.1, 1.0
"""Range of the deviation of a normal distribution, in units of half the range of the data (as DreamerV3)."""


@dataclass(frozen=True)
class Categorical:
    """A choice among `num_logits` classes."""

    num_logits: int

    def log_prob(self, logits: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
        return logits.log_softmax(-1).gather(-1, choice.long()[..., None])[..., 0]

    def entropy(self, logits: torch.Tensor) -> torch.Tensor:
        log_probs = logits.log_softmax(-1)
        return -(log_probs.exp() * log_probs).sum(-1)

    def kl(self, logits: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        log_probs = logits.log_softmax(-1)
        return (log_probs.exp() * (log_probs - prior.log_softmax(-1))).sum(-1)

    def sample(self, logits: torch.Tensor, noise: torch.Tensor, temperature: float) -> torch.Tensor:
        # The noise of rollouts is normal on every device and in every engine; its distribution function makes it
        # uniform, and the class is where the cumulated probabilities pass that.
        cumulated = (logits / temperature).softmax(-1).cumsum(-1)
        uniform = torch.special.ndtr(noise) * cumulated[..., -1]
        classes = torch.searchsorted(cumulated, uniform[..., None].contiguous(), right=True)[..., 0]
        return classes.clamp(max=self.num_logits - 1)

    def mode(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.argmax(-1)


@dataclass(frozen=True)
class Normal:
    """A value with a normal distribution, whose mean lies in (-1, 1), the range of the data."""

    num_logits: int = 2

    @staticmethod
    def parameters(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation."""
        mean, spread = logits.unbind(-1)
        return mean.tanh(), SMALLEST_STD + (LARGEST_STD - SMALLEST_STD) * spread.sigmoid()

    def log_prob(self, logits: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
        mean, std = self.parameters(logits)
        return -(((choice - mean) / std).square() + math.log(2 * math.pi)) / 2 - std.log()

    def entropy(self, logits: torch.Tensor) -> torch.Tensor:
        return self.parameters(logits)[1].log() + (1 + math.log(2 * math.pi)) / 2

    def kl(self, logits: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        (mean, std), (prior_mean, prior_std) = self.parameters(logits), self.parameters(prior)
        ratio = std / prior_std
        return (ratio.square() + ((mean - prior_mean) / prior_std).square() - 1) / 2 - ratio.log()

    def sample(self, logits: torch.Tensor, noise: torch.Tensor, temperature: float) -> torch.Tensor:
        mean, std = self.parameters(logits)
        return mean + temperature * std * noise

    def mode(self, logits: torch.Tensor) -> torch.Tensor:
        return self.parameters(logits)[0]


class ActionScale:
    """Continuous action components in the units of the data <-> values in [-1, 1], or bins of them.

    The ends of [-1, 1] are the smallest and the largest value of the data. The middle is 0 for a displacement (each
    side then has its scale), otherwise the middle of the range. A bin's value is a point of an even grid from -1 to 1,
    ends included, and with mu-law companding of a grid that is finer near the middle.

    Args:
        space: the world's actions.
        indices: the continuous components.
        bins: number of bins of each.
        mu: of the mu-law; None for an even grid.
    """

    def __init__(self, space: ActionSpace, indices: Sequence[int], bins: Sequence[int], mu: float | None):
        # NumPy, because models are built without memory for their tensors before they are loaded.
        low, high = space.low[list(indices)], space.high[list(indices)]
        around_zero = space.relative[list(indices)] & (low < 0) & (high > 0)
        middle = np.where(around_zero, 0, (low + high) / 2)
        self.mu = mu
        self._table = torch.from_numpy(np.stack([low, middle, high, np.array(bins) - 1]).astype(np.float32))

    def to_unit(self, values: torch.Tensor) -> torch.Tensor:
        """Return values in [-1, 1]; those outside the range of the data come to its ends."""
        low, middle, high, _ = self._on(values.device)
        distance = values.float() - middle
        side = torch.where(distance < 0, middle - low, high - middle)
        # A component that never moved in the data has no range.
        return (distance / side.where(side > 0, torch.ones_like(side))).clamp(-1, 1)

    def from_unit(self, unit: torch.Tensor) -> torch.Tensor:
        """Return the values that numbers stand for, which are first clipped to [-1, 1]."""
        low, middle, high, _ = self._on(unit.device)
        unit = unit.clamp(-1, 1)
        return middle + unit * torch.where(unit < 0, middle - low, high - middle)

    def to_bins(self, values: torch.Tensor) -> torch.Tensor:
        """Return the bin of each value, int64: the one with the nearest value on the (companded) grid."""
        unit, last = self.to_unit(values), self._on(values.device)[3]
        if self.mu is not None:
            unit = unit.sign() * torch.log1p(self.mu * unit.abs()) / math.log1p(self.mu)
        return ((unit + 1) / 2 * last).round().long()

    def from_bins(self, bins: torch.Tensor) -> torch.Tensor:
        """Return the value of each bin."""
        unit = 2 * bins / self._on(bins.device)[3] - 1
        if self.mu is not None:
            unit = unit.sign() * torch.expm1(unit.abs() * math.log1p(self.mu)) / self.mu
        return self.from_unit(unit)

    def _on(self, device: torch.device) -> torch.Tensor:
        """Return the smallest value, the middle, the largest value and the last bin of each component, (4, n)."""
        if device != self._table.device:
            self._table = self._table.to(device)
        return self._table


class ActionDistribution:
    """The distribution of an agent's actions, by the agent's config.

    Choices are the form in which actions are learned and kept: int64 (..., C) class numbers; float32 if there are
    normal distributions, whose choices are values in units of half the range of the data.

    Args:
        config: the `DreamerAgentConfig`.

    Attributes:
        space: the world's actions.
        parts: the distribution of each of the C choices.
        num_logits: W, of all parts together.
        num_choices: C.

    Raises:
        ValueError: the world does not know the range of its continuous actions.
    """

    def __init__(self, config: DreamerAgentConfig):
        dynamics = config.dynamics_config
        if dynamics.continuous_action_indices and dynamics.action_stats is None:
            raise ValueError(
                "an agent needs the range of continuous actions, and this world has no action_stats: train the world "
                "on data with statistics, or set action_stats in the config of its dynamics model."
            )
        self.space = ActionSpace.from_config(dynamics)
        self.continuous, self.categorical = dynamics.continuous_action_indices, dynamics.categorical_action_indices
        self.bins, self.is_normal = config.bins_per_component, config.action_distribution == "normal"
        self.is_joint = config.joint_action_bins and len(self.continuous) > 1
        self.scale = ActionScale(self.space, self.continuous, self.bins, config.action_bin_mu)
        if self.is_normal:
            continuous = [Normal() for _ in self.continuous]
        else:
            continuous = [Categorical(math.prod(self.bins))] if self.is_joint else list(map(Categorical, self.bins))
        classes = [Categorical(dynamics.action_num_classes[index]) for index in self.categorical]
        self.parts: list[Categorical | Normal] = continuous + classes
        self.num_logits, self.num_choices = sum(part.num_logits for part in self.parts), len(self.parts)

    def encode(self, actions: torch.Tensor) -> torch.Tensor:
        """Return the choices (..., C) that describe raw actions (..., a) best.

        An action outside the range of the data becomes the nearest one inside; see `is_outside`.
        """
        choices = []
        if self.continuous:
            # Indexing by a list would wait for the GPU, because the list becomes a tensor.
            values = torch.stack([actions[..., index] for index in self.continuous], dim=-1)
            encoded = self.scale.to_unit(values) if self.is_normal else self.scale.to_bins(values)
            choices.append(self._joined(encoded) if self.is_joint else encoded)
        for index, part in zip(self.categorical, self.parts[self.num_choices - len(self.categorical) :]):
            choices.append(actions[..., index : index + 1].round().long().clamp(0, part.num_logits - 1))
        return torch.cat(choices, dim=-1)

    def decode(self, choices: torch.Tensor) -> torch.Tensor:
        """Return the raw actions (..., a) float32 that choices (..., C) stand for, inside the range of the data."""
        count = self.num_choices - len(self.categorical)
        continuous, classes = choices[..., :count], choices[..., count:].float()
        if self.is_normal:
            values = self.scale.from_unit(continuous)
        else:
            values = self.scale.from_bins(self._split(continuous[..., 0]) if self.is_joint else continuous)
        columns = dict(zip(self.continuous, values.unbind(-1))) | dict(zip(self.categorical, classes.unbind(-1)))
        return torch.stack([columns[index].float() for index in range(self.space.size)], dim=-1)

    def is_outside(self, actions: torch.Tensor) -> torch.Tensor:
        """Return bool (...): whether raw actions (..., a) are outside the range that the choices cover.

        A thousandth of the range outside counts as rounding.
        """
        low, high = (torch.from_numpy(bound).to(actions.device) for bound in (self.space.low, self.space.high))
        slack = (high - low) / 1000
        return ((actions < low - slack) | (actions > high + slack)).any(-1)

    def log_prob(self, logits: torch.Tensor, choices: torch.Tensor) -> torch.Tensor:
        """Return the log-probability (...) of choices (..., C), or its density where they are normal.

        Args:
            logits: (..., W).
            choices: (..., C), see `encode`.
        """
        return self._sum(part.log_prob(of, choice) for part, of, choice in self._parts(logits, choices))

    def entropy(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the entropy (...) in nats for logits (..., W)."""
        return self._sum(part.entropy(of) for part, of in self._parts(logits))

    def kl(self, logits: torch.Tensor, prior_logits: torch.Tensor) -> torch.Tensor:
        """Return KL[policy || prior] (...) in nats for the logits (..., W) of both."""
        priors = prior_logits.split(self._widths, dim=-1)
        return self._sum(part.kl(of, prior) for (part, of), prior in zip(self._parts(logits), priors))

    def sample(self, logits: torch.Tensor, noise: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """Return sampled choices (..., C).

        Args:
            logits: (..., W).
            noise: (..., C), standard normal; the same noise and logits give the same choices.
            temperature: below 1 favors likely choices. Defaults to 1.
        """
        return torch.stack(
            [part.sample(of, each, temperature) for part, of, each in self._parts(logits, noise)], dim=-1
        )

    def mode(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the most likely choices (..., C); for a joint grid of bins that is the most likely cell."""
        return torch.stack([part.mode(of) for part, of in self._parts(logits)], dim=-1)

    @property
    def _widths(self) -> list[int]:
        return [part.num_logits for part in self.parts]

    def _parts(self, logits: torch.Tensor, choices: torch.Tensor | None = None):
        """Yield each part with its logits and, if given, its choice or noise."""
        split = logits.float().split(self._widths, dim=-1)
        return zip(self.parts, split) if choices is None else zip(self.parts, split, choices.unbind(-1))

    @staticmethod
    def _sum(terms) -> torch.Tensor:
        return torch.stack(list(terms)).sum(0)

    def _joined(self, bins: torch.Tensor) -> torch.Tensor:
        """Return the cells (..., 1) of the grid for the bins (..., n) of its axes; the last axis counts by ones."""
        cells = bins[..., 0]
        for axis, number in enumerate(self.bins[1:], start=1):
            cells = cells * number + bins[..., axis]
        return cells[..., None]

    def _split(self, cells: torch.Tensor) -> torch.Tensor:
        """Return the bins (..., n) of cells (...)."""
        axes = []
        for number in reversed(self.bins):
            axes.append(cells % number)
            cells = cells // number
        return torch.stack(axes[::-1], dim=-1)


__all__ = ["ActionDistribution", "ActionScale", "Categorical", "Normal"]
