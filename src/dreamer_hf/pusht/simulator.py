"""The gym-pusht simulator as a world model sees it: frames of its size, actions in its form, at its frame rate.

Shapes: C context frames, S side of a frame in pixels. Units as in `task`.
"""

import numpy as np
import torch

from ..data.frame_transform import FrameTransform
from ..start_frames import StartFrames
from .player import PushTPlayer
from .task import FPS, WORLD_SIZE, draw_reset_options, make_pusht_env

RENDERED_PER_PIXEL = 2
"""Frames are drawn larger and then reduced, as recorded frames are when they are converted."""


class PushTSimulator:
    """Episodes of gym-pusht that start with a few frames of scripted play and then follow a world's actions.

    Everything depends on the seed and the actions only.

    Args:
        image_size: side of the frames in pixels.
        relative: whether actions are differences between successive targets, not the targets themselves.
        fps: frame rate of the world, a divisor of the simulator's 10. The target is held in between.
        action_offset: `action_offset` of the world. With 0, the action paired with a frame is executed after it.

    Attributes:
        target: where the agent is heading, (2,) float64.

    Raises:
        ValueError: the frame rate does not divide the simulator's, or gym-pusht is not installed.
    """

    def __init__(self, image_size: int, relative: bool, fps: float = FPS, action_offset: int = 1):
        self.ticks_per_frame = max(1, round(FPS / fps))
        if abs(FPS / self.ticks_per_frame - fps) > 0.005 * fps:
            raise ValueError(
                f"the world runs at {fps:g} frames per second, which does not divide the simulator's {FPS}: "
                "use a world trained on PushT."
            )
        try:
            self._env = make_pusht_env(RENDERED_PER_PIXEL * image_size)
        except ImportError as error:
            raise ValueError("the PushT simulator is not installed: pip install 'dreamer_hf[pusht]'.") from error
        self._env.obs_type = "state"  # Frames are drawn on request only.
        self._shrink = FrameTransform(image_size, image_size)
        self.relative, self.action_offset = relative, action_offset

    @property
    def agent(self) -> np.ndarray:
        """Position of the agent, (2,) float64 xy."""
        return np.array(self._env.agent.position)

    @property
    def block_pose(self) -> np.ndarray:
        """Pose of the block: x, y, angle, (3,) float64."""
        return np.array([*self._env.block.position, self._env.block.angle % (2 * np.pi)])

    def reset(self, seed: int, num_frames: int) -> StartFrames:
        """Start an episode, play `num_frames` frames (C) by script, and return them as one start."""
        rng = np.random.default_rng(seed)
        self._env.reset(seed=int(rng.integers(2**31)), options=draw_reset_options(rng))
        player = PushTPlayer(rng)
        player.reset(self.agent)
        self.target = self.agent
        frames, targets = [self.render()], []
        while len(frames) < num_frames:
            targets.append(player.act(self.agent, self.block_pose))
            self._tick(targets[-1])
            for _ in range(self.ticks_per_frame - 1):
                self._tick(player.act(self.agent, self.block_pose))
            frames.append(self.render())
        pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
        actions, mask = self._align(np.array(targets, np.float64).reshape(-1, 2))
        return StartFrames(pixels[None], torch.from_numpy(actions)[None], torch.from_numpy(mask)[None])

    def step(self, action: np.ndarray) -> None:
        """Execute one action of the world, (2,) in its units."""
        held = self.target
        self.target = np.clip(held + action if self.relative else action, 0, WORLD_SIZE)
        for _ in range(self.ticks_per_frame):
            self._tick(self.target if self.action_offset == 1 else held)

    def render(self) -> np.ndarray:
        """Return the current frame, uint8 RGB (S, S, 3)."""
        return self._shrink(self._env._render())

    def close(self) -> None:
        """Release the simulator."""
        self._env.close()

    def _tick(self, target: np.ndarray) -> None:
        self._env.step(target.astype(np.float64))

    def _align(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn the targets (C - 1, 2) that were set at each frame into actions (C, 2) and mask (C,) for the world."""
        if len(targets):
            self.target = targets[-1]
        actions = np.diff(targets, axis=0, prepend=targets[:1]) if self.relative else targets
        none, mask = np.zeros((1, 2)), np.ones(len(targets) + 1, dtype=bool)
        if self.action_offset == 1:
            mask[0] = False
            return np.concatenate([none, actions]).astype(np.float32), mask
        mask[-1] = False
        return np.concatenate([actions, none]).astype(np.float32), mask


__all__ = ["PushTSimulator"]
