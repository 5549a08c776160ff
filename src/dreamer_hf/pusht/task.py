"""The PushT task: its sizes, its goal, and the gym-pusht environment. Needs the extra `pusht`.

Units: positions in simulator pixels, [0, 512] on both axes (y points down); angles in radians; 10 frames per second.
"""

import os

import numpy as np

WORLD_SIZE = 512.0
FPS = 10
TEE_CENTER_OFFSET = 45.0
"""Distance in pixels from the origin of the body (middle of the bar's upper edge) to about the center of the T."""
GOAL_POSE = (256.0, 256.0, np.pi / 4)
"""x, y and angle at which the simulator counts the block as delivered."""
NEAR_GOAL_FRACTION = 0.25
"""Fraction of the episodes in which the block starts near the goal. From a random start it rarely gets there."""


def tee_center(block_pose: np.ndarray) -> np.ndarray:
    """Return the (2,) xy of about the center of the T for the x, y and angle of its body."""
    x, y, angle = block_pose
    return np.array([x, y]) + TEE_CENTER_OFFSET * np.array([-np.sin(angle), np.cos(angle)])


def make_pusht_env(image_size: int):
    """Create the simulator, without a display, with square observations of `image_size` pixels.

    Raises:
        ImportError: gym-pusht is not installed.
    """
    # pygame chooses its video driver when it is imported, and fails on a machine without a display.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import gym_pusht  # noqa: F401  (registers the environment)
    import gymnasium

    return gymnasium.make(
        "gym_pusht/PushT-v0",
        obs_type="pixels_agent_pos",
        observation_width=image_size,
        observation_height=image_size,
        disable_env_checker=True,
    ).unwrapped


def draw_reset_options(rng: np.random.Generator) -> dict | None:
    """Draw where an episode starts: anywhere (None: the simulator draws), or with the block near the goal."""
    if rng.random() >= NEAR_GOAL_FRACTION:
        return None
    agent = rng.uniform(50, 450, size=2)
    block = np.array(GOAL_POSE) + rng.uniform(-1, 1, size=3) * (60, 60, 0.7)
    return {"reset_to_state": [*agent, *block]}


__all__ = ["FPS", "GOAL_POSE", "TEE_CENTER_OFFSET", "WORLD_SIZE", "draw_reset_options", "make_pusht_env", "tee_center"]
