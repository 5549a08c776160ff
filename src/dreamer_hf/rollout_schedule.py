"""The grid of signal levels and step sizes, and the passes of a generated frame: every index convention, without
torch.

Source: arXiv 2509.24527, section 3.2. Every index convention of the dynamics model is written here and nowhere else.

Signal level `tau` in [0, 1]: 0 is pure noise, 1 is clean; `z_tau = (1 - tau) * noise + tau * z`. Its index is
`tau * num_signal_levels` (K_max); `tau = 1` has no index, because there is nothing to predict.
Step size `d` in {1/K_max, ..., 1/2, 1}. Its index is `log2(d * K_max)`: 0 is the finest step, `log2(K_max)` is 1.
"""

import math
from dataclasses import dataclass

CONTEXT_SIGNAL_LEVEL = 0.9
"""Default level at which rollouts show the past."""


def num_step_sizes(num_signal_levels: int) -> int:
    """Return the number of step sizes on the grid of `num_signal_levels` (K_max): log2(K_max) + 1."""
    return num_signal_levels.bit_length()


def signal_level_id(signal_level: float, num_signal_levels: int) -> int:
    """Return the index of a signal level in [0, 1), rounded down to the grid.

    Raises:
        ValueError: if the level is outside [0, 1); 1 is clean and has no index.
    """
    if not 0 <= signal_level < 1:
        raise ValueError(f"expected a signal level of at least 0 and below 1, got {signal_level}.")
    # A level of the grid may round to slightly less than its index in the product; the constant keeps it.
    return math.floor(signal_level * num_signal_levels + 1e-9)


def step_size_id(num_inference_steps: int, num_signal_levels: int) -> int:
    """Return the index of the step size `1 / num_inference_steps`.

    Raises:
        ValueError: if the number of steps is not a power of two from 1 to K_max.
    """
    is_power_of_two = num_inference_steps > 0 and num_inference_steps & (num_inference_steps - 1) == 0
    if not is_power_of_two or num_inference_steps > num_signal_levels:
        raise ValueError(
            f"expected num_inference_steps to be a power of two from 1 to {num_signal_levels}, got "
            f"{num_inference_steps}."
        )
    return (num_signal_levels // num_inference_steps).bit_length() - 1


@dataclass(frozen=True)
class RolloutSchedule:
    """Passes of one generated frame: `num_inference_steps` denoising passes and one commit pass (section 3.2).

    Args:
        num_inference_steps: number of denoising passes K, a power of two, at most `num_signal_levels`.
        context_signal_level: level at which past frames are shown to the model; a little noise makes it robust to its
            own errors. Mixed exactly, indexed rounded down to the grid.
        num_signal_levels: K_max of the model.

    Raises:
        ValueError: if the number of steps or the level is not on the model's grid.
    """

    num_inference_steps: int
    context_signal_level: float
    num_signal_levels: int

    def __post_init__(self):
        # Both raise on invalid input, which a rollout must refuse when it starts, not in its first step.
        _ = self.step_size_id, self.context_signal_level_id

    @property
    def step_size_id(self) -> int:
        """Index of the step size 1/K of a denoising pass."""
        return step_size_id(self.num_inference_steps, self.num_signal_levels)

    @property
    def context_signal_level_id(self) -> int:
        """Index of the signal level of past frames; their step size has index 0."""
        return signal_level_id(self.context_signal_level, self.num_signal_levels)

    def signal_level_id(self, step: int) -> int:
        """Return the index of the signal level `step / K` at which denoising pass `step` starts."""
        return step * (self.num_signal_levels // self.num_inference_steps)


__all__ = ["CONTEXT_SIGNAL_LEVEL", "RolloutSchedule", "num_step_sizes", "signal_level_id", "step_size_id"]
