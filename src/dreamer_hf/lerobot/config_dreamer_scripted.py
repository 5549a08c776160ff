"""`--teleop.type=dreamer_scripted`: the options of a teleoperator without a person."""

from dataclasses import dataclass

from lerobot.teleoperators.config import TeleoperatorConfig


@TeleoperatorConfig.register_subclass("dreamer_scripted")
@dataclass(kw_only=True)
class DreamerScriptedConfig(TeleoperatorConfig):
    """Actions from a CSV file, or a random walk over the range of a world's actions."""

    # CSV file with the names of the actions in its first line, and one action in each further line. After the last
    # one, it begins again.
    file: str | None = None
    # World whose actions the random walk takes: a shipped one, a folder, or a Hub repository.
    world: str = "pusht-tiny"
    # Seed of the random walk.
    seed: int = 0
    # Standard deviation of a step of the walk, as part of the range.
    step: float = 0.1


__all__ = ["DreamerScriptedConfig"]
