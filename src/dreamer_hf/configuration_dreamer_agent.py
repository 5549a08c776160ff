"""Configuration of an agent: a world, and what acts in it (arXiv 2509.24527, sections 3.3 and 4.1)."""

import math

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from .configuration_base import LARGEST, DreamerConfigMixin, check_integers, check_positive
from .configuration_dreamer import DreamerWorldConfig

ACTION_DISTRIBUTIONS = ("bins", "normal")

MAX_JOINT_BINS = 4096
"""Cells of a joint grid of bins: each is a logit of every prediction distance."""

MAX_VALUE_RANGE = 80.0
"""exp(88) overflows in float32."""


@strict
class DreamerAgentConfig(DreamerConfigMixin, PreTrainedConfig):
    r"""
    Configuration of [`DreamerAgentModel`]: a world, agent tokens and an eye that see it, and the heads that read them.

    The world must have `action_offset=1`: the agent at frame t chooses the command that leads to frame t+1. It must
    also know the range of its continuous actions (`action_stats`), which the agent's actions cover.

    Args:
        world_config (`DreamerWorldConfig` or `dict`, *optional*): Config of the world; one of the defaults by default.
        num_agent_tokens (`int`, *optional*, defaults to 1): Number of agent tokens of a frame, G. The heads read the
            mean of what the transformer makes of them.
        num_tasks (`int`, *optional*, defaults to 1): Number of tasks, Q, each with a learned embedding.
        task_names (`list[str]`, *optional*): Name of every task, such as those of a dataset.
        task_dim (`int`, *optional*): Width of a vector that describes the task (a goal position, say) and takes the
            place of its number. Tasks are numbers by default.
        num_predicted_steps (`int`, *optional*, defaults to 8): Number of prediction distances of the policy and reward
            heads, L (multi-token prediction). Only distance 0 acts; the others teach the representation to look ahead.
        eye_size (`int`, *optional*, defaults to 128): Width of the agent's eye, E, which reads the frame that the
            world predicts and gives the heads what it sees.
        num_eye_looks (`int`, *optional*, defaults to 8): Number of places that it looks at in a frame.
        head_hidden_size (`int`, *optional*): Width of a head's hidden layers; that of the dynamics model by default.
        num_head_layers (`int`, *optional*, defaults to 2): Number of hidden layers of a head.
        action_distribution (`str`, *optional*, defaults to `"bins"`): Distribution of continuous action components:
            `"bins"`, a categorical distribution over values between the smallest and the largest of the data, or
            `"normal"`. Binary and categorical components have a categorical distribution either way.
        num_action_bins (`int` or `list[int]`, *optional*, defaults to 21): Number of bins of every continuous
            component, or of each one; odd, so that one stands for the middle (no motion, for a displacement).
        joint_action_bins (`bool`, *optional*, defaults to `False`): Whether all continuous components together have
            one distribution over a grid. Independent bins cannot tell "left and up, or right and down" apart.
        action_bin_mu (`float`, *optional*): Mu of mu-law companding, which makes bins finer near the middle; evenly
            spaced by default.
        num_value_bins (`int`, *optional*, defaults to 255): Number of bins of rewards and values, M; odd.
        value_range (`float`, *optional*, defaults to 20.0): Rewards and values lie within symexp(-S) and symexp(S) for
            this S. 5 leaves about 35 bins in [0, 1], and 20 leaves five.
        predicts_continue (`bool`, *optional*, defaults to `False`): Whether a head predicts that the episode
            continues after a frame. Without it, imagined episodes do not end.
        discount (`float`, *optional*, defaults to 0.997): Discount of future rewards in the values, per frame.

    Raises:
        ValueError: if no agent can have these values; the sentence says what would be valid.

    Example:

    ```python
    >>> from dreamer_hf import DreamerAgentConfig, DreamerAgentModel

    >>> # An agent for a world whose actions are displacements of up to 36 pixels
    >>> stats = {"mean": [0.0, 0.0], "std": [9.0, 9.0], "min": [-36.0, -36.0], "max": [36.0, 36.0]}
    >>> config = DreamerAgentConfig(world_config={"dynamics_config": {"action_stats": stats}}, num_action_bins=15)

    >>> # An agent with random weights
    >>> agent = DreamerAgentModel(config)
    ```
    """

    model_type = "dreamer_agent"
    sub_configs_defaults = {"world_config": DreamerWorldConfig}

    world_config: dict | PreTrainedConfig | None = None
    num_agent_tokens: int = 1
    num_tasks: int = 1
    task_names: list[str] | None = None
    task_dim: int | None = None
    num_predicted_steps: int = 8
    eye_size: int = 128
    num_eye_looks: int = 8
    head_hidden_size: int | None = None
    num_head_layers: int = 2
    action_distribution: str = "bins"
    num_action_bins: int | list[int] = 21
    joint_action_bins: bool = False
    action_bin_mu: float | int | None = None
    num_value_bins: int = 255
    value_range: float | int = 20.0
    predicts_continue: bool = False
    discount: float | int = 0.997
    initializer_range: float | int | None = None

    @property
    def dynamics_config(self) -> PreTrainedConfig:
        """The config of the world's dynamics model."""
        return self.world_config.dynamics_config

    @property
    def bins_per_component(self) -> list[int]:
        """Number of bins of each continuous action component."""
        count = len(self.dynamics_config.continuous_action_indices)
        return [self.num_action_bins] * count if isinstance(self.num_action_bins, int) else list(self.num_action_bins)

    def validate_architecture(self):
        """Check the world, the tasks, the sizes of the heads and the bins.

        Raises:
            ValueError: if no agent can have these values.
        """
        if not isinstance(self.world_config, DreamerWorldConfig):
            raise ValueError(
                f"expected world_config to be a DreamerWorldConfig, got a {type(self.world_config).__name__}."
            )
        self._check_world()
        check_integers(self, {"num_agent_tokens": 2**10, "num_tasks": 2**16, "num_predicted_steps": 2**10})
        check_integers(self, {"num_head_layers": 2**6, "eye_size": 2**16, "num_eye_looks": 2**10})
        if self.eye_size % self.num_eye_looks:
            raise ValueError(
                f"expected eye_size to be a multiple of num_eye_looks={self.num_eye_looks}, got {self.eye_size}."
            )
        check_integers(
            self, {name: 2**16 for name in ("head_hidden_size", "task_dim") if getattr(self, name) is not None}
        )
        check_positive("action_bin_mu", self.action_bin_mu)
        if self.initializer_range is not None and not 0 <= self.initializer_range < LARGEST:
            raise ValueError(f"expected initializer_range to be at least 0, got {self.initializer_range}.")
        if not 0 < self.discount <= 1:
            raise ValueError(f"expected discount to be above 0 and at most 1, got {self.discount}.")
        if not 0 < self.value_range <= MAX_VALUE_RANGE:
            raise ValueError(
                f"expected value_range to be above 0 and at most {MAX_VALUE_RANGE:g}, got {self.value_range}."
            )
        self._check_tasks()
        self._check_bins()

    def _check_world(self) -> None:
        dynamics = self.dynamics_config
        if dynamics.action_offset != 1:
            raise ValueError(
                "an agent needs a world with action_offset=1, and this one has 0, where the action of a frame is part "
                "of the input from which it would have to be chosen: fine-tune the world on data with offset 1 first."
            )

    def _check_tasks(self) -> None:
        names = self.task_names
        if self.task_dim is not None and (names is not None or self.num_tasks != 1):
            raise ValueError("tasks are either numbers or vectors: with task_dim, leave num_tasks and task_names out.")
        if names is not None and (len(names) != self.num_tasks or len(set(names)) < len(names)):
            raise ValueError(f"expected a different name for each of num_tasks={self.num_tasks} tasks, got {names}.")

    def _check_bins(self) -> None:
        if self.action_distribution not in ACTION_DISTRIBUTIONS:
            raise ValueError(
                f"expected action_distribution to be 'bins' or 'normal', got {self.action_distribution!r}."
            )
        bins, count = self.bins_per_component, len(self.dynamics_config.continuous_action_indices)
        if len(bins) != count:
            raise ValueError(
                f"num_action_bins has {len(bins)} entries: give one for each of {count} continuous actions."
            )
        for name, values in {"num_action_bins": bins, "num_value_bins": [self.num_value_bins]}.items():
            if not all(3 <= number <= 2**16 and number % 2 for number in values):
                raise ValueError(f"expected {name} to be odd and from 3 to {2**16}, got {getattr(self, name)}.")
        if self.joint_action_bins and self.action_distribution != "bins":
            raise ValueError("joint_action_bins goes with action_distribution='bins' only: leave one of them out.")
        if self.joint_action_bins and math.prod(bins) > MAX_JOINT_BINS:
            raise ValueError(
                f"joint_action_bins makes a grid of {math.prod(bins)} cells of {count} continuous actions: choose "
                f"fewer num_action_bins, for at most {MAX_JOINT_BINS} cells, or independent bins."
            )


__all__ = ["DreamerAgentConfig"]
