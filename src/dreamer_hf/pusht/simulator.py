"""The real gym-pusht simulator as a world model knows it: pictures of its size, actions in its form, at its rate.

Shapes: C context frames, H = W pixels. Units: as in `pusht`.
"""

from dataclasses import dataclass

import numpy as np

from ..data.frame_transform import FrameTransform
from .player import FPS, WORLD_SIZE, PushTPlayer, make_pusht_env, start_options

RENDERED_PER_PIXEL = 2
"""Pictures are drawn larger and shrunk, as recordings are when they are converted."""


@dataclass(frozen=True)
class Beginning:
    """What happened before an episode is handed over.

    Attributes:
        frames: uint8 (C,H,W,3) RGB.
        actions: float32 (C,2), raw and aligned as the world takes them.
        action_mask: bool (C,), False where a frame has no action.
    """

    frames: np.ndarray
    actions: np.ndarray
    action_mask: np.ndarray


class PushTSimulator:
    """Episodes of gym-pusht that begin with a little scripted play and are then steered with a world's actions.

    Everything depends on the seed and the actions alone.

    Args:
        image_size: side of the pictures, pixels.
        relative: actions are differences between successive targets; else they are the targets.
        fps: frames a second of the world, a divisor of the simulator's 10; a target is held in between.
        action_offset: of the world. With 0, the action given beside a frame is carried out after it.

    Attributes:
        target: where the agent is told to go, (2,) float64.

    Raises:
        ValueError: the rate does not divide the simulator's, or gym-pusht is missing.
    """

    def __init__(self, image_size: int, relative: bool, fps: float = FPS, action_offset: int = 1):
        self.ticks_per_frame = max(1, round(FPS / fps))
        if abs(FPS / self.ticks_per_frame - fps) > 0.005 * fps:
            raise ValueError(
                f"the world runs at {fps:g} frames a second, which does not divide the simulator's {FPS}: "
                "compare a world trained on PushT."
            )
        try:
            self._env = make_pusht_env(RENDERED_PER_PIXEL * image_size)
        except ImportError as error:
            raise ValueError("the PushT simulator is missing: pip install 'dreamer_hf[pusht]'.") from error
        self._env.obs_type = "state"  # pictures are drawn when they are asked for
        self._shrink = FrameTransform(image_size, image_size)
        self.relative, self.action_offset = relative, action_offset

    @property
    def agent(self) -> np.ndarray:
        """Where the agent is, (2,) float64 xy."""
        return np.array(self._env.agent.position)

    @property
    def block_pose(self) -> np.ndarray:
        """Where the block is: x, y, angle, (3,) float64."""
        return np.array([*self._env.block.position, self._env.block.angle % (2 * np.pi)])

    def begin(self, seed: int, num_frames: int) -> Beginning:
        """Starts an episode and plays its first `num_frames` frames (C) by script."""
        rng = np.random.default_rng(seed)
        self._env.reset(seed=int(rng.integers(2**31)), options=start_options(rng))
        player = PushTPlayer(rng)
        player.reset(self.agent)
        self.target = self.agent
        frames, targets = [self.picture()], []
        while len(frames) < num_frames:
            targets.append(player.act(self.agent, self.block_pose))
            self._tick(targets[-1])
            for _ in range(self.ticks_per_frame - 1):
                self._tick(player.act(self.agent, self.block_pose))
            frames.append(self.picture())
        return Beginning(np.stack(frames), *self._aligned(np.array(targets, np.float64).reshape(-1, 2)))

    def step(self, action: np.ndarray) -> None:
        """Carries out one action of the world, (2,) in its units."""
        held = self.target
        self.target = np.clip(held + action if self.relative else action, 0, WORLD_SIZE)
        for _ in range(self.ticks_per_frame):
            self._tick(self.target if self.action_offset == 1 else held)

    def picture(self) -> np.ndarray:
        """What is seen now, uint8 (H,W,3) RGB."""
        return self._shrink(self._env._render())

    def close(self) -> None:
        """Frees the simulator."""
        self._env.close()

    def _tick(self, target: np.ndarray) -> None:
        self._env.step(target.astype(np.float64))

    def _aligned(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Targets (C-1,2), each given on a frame -> actions (C,2) and mask (C,) as the world takes them."""
        if len(targets):
            self.target = targets[-1]
        actions = np.diff(targets, axis=0, prepend=targets[:1]) if self.relative else targets
        none, mask = np.zeros((1, 2)), np.ones(len(targets) + 1, dtype=bool)
        if self.action_offset == 1:
            mask[0] = False
            return np.concatenate([none, actions]).astype(np.float32), mask
        mask[-1] = False
        return np.concatenate([actions, none]).astype(np.float32), mask
