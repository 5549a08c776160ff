"""Names of motors as LeRobot's commands expect them."""

from collections.abc import Iterable

ENDINGS = (".pos", ".vel")
"""`lerobot-rollout` shows policies only the numbers whose names end so."""


def motor_key(name: str) -> str:
    """Return the name of a position: "shoulder" becomes "shoulder.pos", and "wheel.vel" stays."""
    return name if name.endswith(ENDINGS) else f"{name}{ENDINGS[0]}"


def motor_features(names: Iterable[str]) -> dict[str, type]:
    """Return LeRobot's description of numbers with these names."""
    return {motor_key(name): float for name in names}


__all__ = ["motor_features", "motor_key"]
