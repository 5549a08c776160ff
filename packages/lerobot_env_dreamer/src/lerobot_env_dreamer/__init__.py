"""Registers dreams with LeRobot, which imports every package whose name begins with `lerobot_env_`."""

import dreamer_hf.lerobot  # noqa: F401
