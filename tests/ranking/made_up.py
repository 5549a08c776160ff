"""A made-up environment in which a good policy is known: a number that actions move, scored by how large it is.

Its frames are black; the policies and the score see the state.
"""

import numpy as np
import torch

from dreamer_hf.ranking.observations import Observation
from dreamer_hf.reward_signal import RewardSignal
from dreamer_hf.start_frames import StartFrames

SIZE, STATE_SIZE = 32, 2


class Line:
    """N places in the plane, which actions move."""

    def __init__(self, form):
        self.form = form

    def reset(self, seeds):
        self.places = np.stack([np.random.default_rng(seed).normal(size=STATE_SIZE) for seed in seeds])
        count = len(seeds)
        shape = (count, 2)
        return StartFrames(
            torch.zeros(*shape, 3, SIZE, SIZE, dtype=torch.uint8),
            torch.zeros(*shape, STATE_SIZE),
            torch.zeros(shape, dtype=torch.bool),
            states=torch.tensor(self.places, dtype=torch.float32)[:, None].repeat(1, 2, 1),
        )

    def observe(self):
        frames = np.zeros((len(self.places), SIZE, SIZE, 3), np.uint8)
        return Observation(lambda: frames, self.places.astype(np.float32), None)

    def step(self, actions):
        self.places = self.places + actions


def forward(observation):
    return np.ones((len(observation.frames), 2))


def slowly(observation):
    return np.full((len(observation.frames), 2), 0.5)


def backward(observation):
    return -np.ones((len(observation.frames), 2))


def broken(observation):
    return np.full((len(observation.frames), 2), np.nan)


def how_far(frames, states=None):
    assert len(frames) == len(states)
    return RewardSignal(states.sum(axis=1).astype(np.float32), states[:, 0] > 3)
