"""The PushT simulator as recorders use it: the physics and the drawn scene, without observations and rewards.

gym-pusht's `step` also draws an observation and intersects polygons for the reward, which takes most of its time.
"""

import numpy as np

from .task import draw_reset_options, make_pusht_env

RGB_OF_BGRA = (2, 1, 0)


class PushTStage:
    """One scene of gym-pusht.

    Attributes:
        agent: position of the agent, (2,) float64 xy.
        block_pose: pose of the block: x, y, angle in [0, 2 pi), (3,) float64.
    """

    def __init__(self):
        self._env = make_pusht_env(16)
        self._env.obs_type = "state"  # Nothing is drawn but on request.

    def reset(self, rng: np.random.Generator) -> None:
        """Draw where an episode starts."""
        self._env.reset(seed=int(rng.integers(2**31)), options=draw_reset_options(rng))

    @property
    def agent(self) -> np.ndarray:
        return np.array(self._env.agent.position)

    @property
    def block_pose(self) -> np.ndarray:
        return np.array([*self._env.block.position, self._env.block.angle % (2 * np.pi)])

    def tick(self, target: np.ndarray) -> None:
        """Let the agent head for a target (2,) for a tenth of a second, exactly as gym-pusht does."""
        env, agent = self._env, self._env.agent
        x, y = map(float, target)
        for _ in range(int(1 / (env.dt * env.control_hz))):
            (at_x, at_y), (speed_x, speed_y) = agent.position, agent.velocity
            change_x = env.k_p * (x - at_x) - env.k_v * speed_x
            change_y = env.k_p * (y - at_y) - env.k_v * speed_y
            agent.velocity = speed_x + change_x * env.dt, speed_y + change_y * env.dt
            env.space.step(env.dt)

    def draw(self) -> np.ndarray:
        """Return the scene, (512, 512, 4) uint8 of blue, green, red and nothing: the memory of the surface."""
        surface = self._env._draw()
        side = surface.get_height()
        return np.frombuffer(surface.get_buffer(), np.uint8).reshape(side, side, 4)

    def close(self) -> None:
        """Release the simulator."""
        self._env.close()


__all__ = ["RGB_OF_BGRA", "PushTStage"]
