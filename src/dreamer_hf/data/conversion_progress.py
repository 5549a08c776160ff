"""The progress bar of a conversion: source frames done, frames a second, time left."""

from collections.abc import Sequence

from tqdm import tqdm

from .episodes import EpisodeSource


class ConversionProgress:
    """A bar that is told what has been stored so far; a context manager.

    Args:
        source: what is converted. Where only reading tells how long its episodes are, the total is estimated from the
            ones that are done; a stream has none.
        numbers: the episodes to convert now.
        step: source frames to a stored one.
    """

    def __init__(self, source: EpisodeSource, numbers: Sequence[int], step: int):
        self._step, self._num_episodes, self._estimates = step, len(numbers), False
        total = None
        if source.lengths is not None:
            lengths = dict(zip(source.numbers, source.lengths, strict=True))
            total = sum(lengths[number] for number in numbers)
        elif source.numbers is not None:
            self._estimates = True
        self.bar = tqdm(total=total, desc="converting", unit="frame", unit_scale=True, smoothing=0.05)
        self._frames = self._episodes = 0

    def __enter__(self) -> "ConversionProgress":
        return self

    def __exit__(self, *error) -> None:
        self.bar.close()

    def show(self, frames: int, episodes: int) -> None:
        """Shows that so many frames are stored and so many episodes are done, counted from the start."""
        if self._estimates and episodes:
            self.bar.total = max(frames, round(frames * self._num_episodes / episodes)) * self._step
        self.bar.update(frames * self._step - self.bar.n)

    def add(self, frames: int, episodes: int) -> None:
        """Shows that so many more frames are stored, and so many more episodes done."""
        self._frames, self._episodes = self._frames + frames, self._episodes + episodes
        self.show(self._frames, self._episodes)
