"""`--robot.type=dreamer`: the options of a dream as a robot of LeRobot."""

from dataclasses import dataclass, field

from lerobot.robots.config import RobotConfig

from .dream_source import DreamSource


@RobotConfig.register_subclass("dreamer")
@dataclass(kw_only=True)
class DreamerRobotConfig(DreamSource, RobotConfig):
    """A dream to teleoperate, record, replay and run policies in: `lerobot-record --robot.type=dreamer`."""

    # Seed of where dreams begin, and of their noise.
    seed: int = 0
    # Name of the camera of a world that has one.
    camera_name: str = "image"
    # Height and width of the images. They default to what the policy of --policy.path expects, or else the world's.
    height: int | None = None
    width: int | None = None
    # The motors that are observed: world (its own state), pusht (the agent's place in images of PushT), none, or
    # auto: the best that the world has.
    state: str = "auto"
    # What actions are: absolute (positions, whose changes a relative world takes), world (as the world takes them), or
    # auto: absolute for relative worlds, unless the policy's actions spread no farther than theirs.
    actions: str = "auto"
    # Names of a teleoperator's actions -> names of the world's: '{delta_x: target_x, delta_y: target_y}'.
    action_map: dict[str, str] = field(default_factory=dict)
    # What the values of a teleoperator are multiplied with.
    action_scale: float = 1.0
    # Whether frames come at the world's rate, however fast actions come. Otherwise every action dreams one frame.
    realtime: bool = True
    # Whether every recorded episode begins with a new dream.
    restart: bool = True


__all__ = ["DreamerRobotConfig"]
