"""A source whose episodes are computed, so that there can be many of them and nothing has to be decoded."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from dreamer_hf.data.episodes import Episode


@dataclass
class ComputedSource:
    """Episodes that are the same at every reading; an `EpisodeSource`.

    Args:
        num_episodes: how many there are.
        length: frames of each.
        size: height and width in pixels.
        seconds: how long reading an episode takes besides.
        smooth: let frames be moving gradients, which are quickly made and compress well, instead of noise.
    """

    num_episodes: int
    length: int = 12
    size: int = 16
    seconds: float = 0.0
    smooth: bool = False
    fps: float = 10.0
    action_dim: int = 2
    action_names: list[str] = field(default_factory=lambda: ["x", "y"])
    action_units: None = None
    image_key: str = "image"
    action_key: str = "action"
    camera_names: None = None
    state: None = None
    rewards: None = None
    lengths: None = None

    def __post_init__(self):
        self.numbers = range(self.num_episodes)
        self.description = {"format": "computed", "episodes": self.num_episodes}

    def check(self) -> None:
        """There are no files."""

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        for number in numbers:
            time.sleep(self.seconds)
            draw = np.random.default_rng(number)
            if self.smooth:
                ramp = np.arange(self.size, dtype=np.uint8)
                scene = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[None] ^ ramp[:, None]), -1)
                frames = (np.roll(scene, number + moment, axis=0) for moment in range(0, self.length, frame_step))
            else:
                frames = iter(draw.integers(0, 256, (self.length, self.size, self.size, 3), np.uint8)[::frame_step])
            actions = draw.normal(size=(self.length, 2)).astype(np.float32)
            yield Episode(number, frames, lambda actions=actions: actions)
