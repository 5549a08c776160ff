"""The real simulator beside the dream: from the same state, under the same actions."""

import math

import numpy as np
import torch

from ..action_space import ActionSpace
from ..start_frames import CONTEXT_FRAMES, MAX_STARTS, StartFrames
from .simulator import PushTSimulator


class RealPushT:
    """A session's companion: gym-pusht, led through the actions of the dream, and how far the dream is from it.

    Args:
        world_config: the `DreamerWorldConfig` of a world of PushT.
        relative: whether its actions are differences between successive targets; None: what its statistics look like
            (`ActionSpace.is_relative`).
        seed: of the simulator's first beginning; the others follow it.
        num_starts: beginnings.

    Attributes:
        starts: (`num_starts`, C) context frames with their actions, drawn by the simulator.
        frame: uint8 (H, W, 3) RGB, what the simulator shows.

    Raises:
        ValueError: the world's actions are not two, or as in `PushTSimulator`.
    """

    def __init__(self, world_config, relative: bool | None = None, seed: int = 0, num_starts: int = MAX_STARTS):
        config = world_config.dynamics_config
        if config.action_dim != 2:
            raise ValueError(f"PushT has 2 actions but the world has {config.action_dim}: compare a world of PushT.")
        relative = ActionSpace.from_config(config).is_relative if relative is None else relative
        fps = config.fps or 10.0
        size = world_config.tokenizer_config.image_size
        self.simulator = PushTSimulator(size, relative, fps, config.action_offset)
        self._first_seed = seed
        beginnings = [self.simulator.begin(seed + index, CONTEXT_FRAMES) for index in range(num_starts)]
        self.starts = StartFrames(
            torch.from_numpy(np.stack([each.frames for each in beginnings])).permute(0, 1, 4, 2, 3).contiguous(),
            torch.from_numpy(np.stack([each.actions for each in beginnings])),
            torch.from_numpy(np.stack([each.action_mask for each in beginnings])),
        )
        self.begin(0)

    @property
    def psnr(self) -> list[float]:
        """PSNR in dB of each dreamt frame since the start against the simulator's."""
        return [-10 * math.log10(max(error, 1e-10)) for error in self._errors]

    def begin(self, start_index: int) -> None:
        """Puts the simulator where a dream from this start begins."""
        self._start_index, self._actions, self._errors = start_index, [], []
        self.simulator.begin(self._first_seed + start_index, CONTEXT_FRAMES)
        self.frame = self.simulator.picture()

    def advance(self, action: np.ndarray, dreamt: np.ndarray) -> None:
        """Carries out the action (2,) that the dream has answered with a frame, uint8 (H, W, 3)."""
        self.simulator.step(action)
        self.frame = self.simulator.picture()
        self._actions.append(action)
        self._errors.append(float(np.square((self.frame / 255.0) - dreamt / 255.0).mean()))

    def rewind(self, step: int) -> None:
        """Goes back by doing everything again up to there."""
        actions, errors = self._actions[:step], self._errors[:step]
        self.begin(self._start_index)
        for action in actions:
            self.simulator.step(action)
        self.frame, self._actions, self._errors = self.simulator.picture(), actions, errors

    def status(self) -> str:
        """How close the last frame was."""
        return f"{self.psnr[-1]:.1f} dB" if self._errors else ""

    def summary(self) -> str:
        """One line: how close the dream was, at steps 1, 2, 4, ..."""
        psnr = self.psnr
        marks = [step for step in (2**n for n in range(len(psnr).bit_length())) if step <= len(psnr)]
        values = ", ".join(f"{psnr[step - 1]:.1f} at {step}" for step in marks)
        return f"PSNR of the dream against the simulator, in dB by step: {values or 'none'}"
