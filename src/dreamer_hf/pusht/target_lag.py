"""How far the target of PushT's agent is ahead of it, which a world that takes changes of the target does not tell."""

import numpy as np

STIFFNESS, DAMPING = 100.0, 20.0
"""The controller of gym_pusht accelerates the agent by these times its distance from the target, and its speed."""
TICK_SECONDS, TICKS_PER_STEP = 0.01, 10


def target_ahead(changes: np.ndarray, ticks_per_frame: int = 1) -> np.ndarray:
    """Return target minus agent, in pixels of the simulator, after some changes of the target.

    The agent rests on its target before the first one. What happened longer ago than about a second does not matter.

    Args:
        changes: (C, 2), by how many pixels the target moved in each frame, the last one at the end.
        ticks_per_frame: steps of the simulator, 0.1 s each, that a frame takes.
    """
    ahead, velocity = np.zeros(2), np.zeros(2)
    for change in np.asarray(changes, np.float64):
        ahead = ahead + change
        for _ in range(TICKS_PER_STEP * ticks_per_frame):
            velocity = velocity + (STIFFNESS * ahead - DAMPING * velocity) * TICK_SECONDS
            ahead = ahead - velocity * TICK_SECONDS
    return ahead


__all__ = ["target_ahead"]
