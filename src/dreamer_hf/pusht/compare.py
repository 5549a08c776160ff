"""The simulator next to a dream: from the same state, under the same actions."""

import numpy as np
import torch

from ..action_space import ActionSpace
from ..image_metrics import psnr
from ..start_frames import CONTEXT_FRAMES, MAX_STARTS, StartFrames
from .simulator import PushTSimulator


class RealPushT:
    """The gym-pusht simulator, which goes through the actions of a dream, and how far the dream is from it.

    It is what the sessions of `play` call a `SideBySide`.

    Args:
        world_config: the `DreamerWorldConfig` of a world of PushT.
        relative: whether the world's actions are differences between successive targets. Defaults to what the world
            says (`ActionSpace.is_relative`).
        seed: seed of the first episode; the others follow it.
        num_starts: number of episodes to start from.

    Attributes:
        starts: the context frames of the episodes with their actions, drawn by the simulator.
        frame: uint8 RGB (H, W, 3), what the simulator shows.

    Raises:
        ValueError: the world cannot be one of PushT, or as in `PushTSimulator`.
    """

    def __init__(self, world_config, relative: bool | None = None, seed: int = 0, num_starts: int = MAX_STARTS):
        config = world_config.dynamics_config
        height, width = world_config.tokenizer_config.frame_size
        if config.action_dim != 2:
            raise ValueError(f"PushT has 2 actions but the world has {config.action_dim}: choose a world of PushT.")
        if height != width:
            raise ValueError(f"PushT has square frames but the world's are {height}x{width}: choose a world of PushT.")
        relative = ActionSpace.from_config(config).is_relative if relative is None else relative
        self.simulator = PushTSimulator(height, relative, config.fps, config.action_offset)
        self._first_seed = seed
        starts = [self.simulator.reset(seed + index, CONTEXT_FRAMES) for index in range(num_starts)]
        self.starts = StartFrames(
            torch.cat([start.pixel_values_videos for start in starts]),
            torch.cat([start.actions for start in starts]),
            torch.cat([start.action_mask for start in starts]),
        )
        self.begin(0)

    @property
    def psnr(self) -> list[float]:
        """PSNR in dB of each frame of the dream against the simulator's."""
        return [psnr(error) for error in self._errors]

    def begin(self, start_index: int) -> None:
        """Follow a dream that begins from these start frames."""
        self._start_index, self._actions, self._errors = start_index, [], []
        self.simulator.reset(self._first_seed + start_index, CONTEXT_FRAMES)
        self.frame = self.simulator.render()

    def advance(self, action: np.ndarray, dream_frame: np.ndarray) -> None:
        """Execute the action (2,) that led to a frame of the dream, uint8 (H, W, 3)."""
        self.simulator.step(action)
        self.frame = self.simulator.render()
        self._actions.append(action)
        self._errors.append(float(np.square((self.frame / 255.0) - dream_frame / 255.0).mean()))

    def rewind(self, step: int) -> None:
        """Return to the state after `step` steps, by executing them again."""
        actions, errors = self._actions[:step], self._errors[:step]
        self.begin(self._start_index)
        for action in actions:
            self.simulator.step(action)
        self.frame, self._actions, self._errors = self.simulator.render(), actions, errors

    def status(self) -> str:
        """Return how close the last frame was."""
        return f"{self.psnr[-1]:.1f} dB" if self._errors else ""

    def summary(self) -> str:
        """Return one line that says how close the dream was at steps 1, 2, 4, ..."""
        values = self.psnr
        marks = [step for step in (2**n for n in range(len(values).bit_length())) if step <= len(values)]
        listed = ", ".join(f"{values[step - 1]:.1f} at {step}" for step in marks)
        return f"PSNR of the dream against the simulator, in dB by step: {listed or 'none'}"


__all__ = ["RealPushT"]
