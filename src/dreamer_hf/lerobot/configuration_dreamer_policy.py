"""The configuration of an agent as a LeRobot policy, which finds the other files by the name of this one."""

import json
from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig


@PreTrainedConfig.register_subclass("dreamer")
@dataclass
class DreamerConfig(PreTrainedConfig):
    """How an agent acts as a LeRobot policy: `config.json` of what `dreamer export lerobot-policy` writes.

    Args:
        agent: the `DreamerAgentConfig` as JSON.
        task: number or name of the task.
        deterministic: whether to take the most likely action instead of drawing one. Draws are the default, because
            that is what was trained: the most likely action of play is often to do nothing.
        temperature: below 1 favors likely actions.
        seed: seed of the noise of all episodes, each of which continues where the last one ended.
        gives_targets: whether actions are positions to go to where the world takes changes of these, as simulators and
            robots expect; the first position is `observation.state`.
        target_low, target_high: smallest and largest position of each action; without a limit by default.
        discover_packages_path: not used; LeRobot passes the option by which it finds this policy on to it.
        normalization_mapping: the model normalizes what it takes, so nothing is done before.
    """

    agent: str = ""
    task: str = "0"
    deterministic: bool = False
    temperature: float = 1.0
    seed: int = 0
    gives_targets: bool = True
    target_low: list[float] | None = None
    target_high: list[float] | None = None
    discover_packages_path: str | None = None
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )

    @property
    def observation_delta_indices(self) -> None:
        """The policy keeps its own past, and needs the present frame only."""

    @property
    def action_delta_indices(self) -> None:
        """Not trained by LeRobot."""

    @property
    def reward_delta_indices(self) -> None:
        """Not trained by LeRobot."""

    def get_optimizer_preset(self):
        """Refuse: agents are trained by this package."""
        raise NotImplementedError("LeRobot cannot train a dreamer policy: use `dreamer train agent`, then export it.")

    def get_scheduler_preset(self) -> None:
        """There is none."""

    def validate_features(self) -> None:
        """Check that there is an agent, images for it, and an action.

        Raises:
            ValueError: something is missing.
        """
        if not self.agent:
            raise ValueError("the config holds no agent: make the folder with `dreamer export lerobot-policy`.")
        if not self.image_features or self.action_feature is None:
            raise ValueError("a dreamer policy needs an image and an action among its features: export it again.")

    @property
    def agent_config(self) -> dict:
        """The fields of the `DreamerAgentConfig`."""
        return json.loads(self.agent)


__all__ = ["DreamerConfig"]
