"""The progress bar of a conversion."""

from collections.abc import Sequence

from tqdm import tqdm

from .episodes import EpisodeSource


class ConversionProgress:
    """A progress bar of source frames, with their rate and the time that remains; a context manager.

    Args:
        source: what is converted. If only reading tells how long its episodes are, the total is estimated from the
            finished ones; a stream has no total.
        numbers: the episodes to convert now.
        step: source frames per stored frame.
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

    def note(self, text: str) -> None:
        """Show a few words behind the bar."""
        self.bar.set_postfix_str(text, refresh=False)

    def show(self, frames: int, episodes: int) -> None:
        """Show how many frames are stored and how many episodes are finished, since the start."""
        if self._estimates and episodes:
            self.bar.total = max(frames, round(frames * self._num_episodes / episodes)) * self._step
        self.bar.update(frames * self._step - self.bar.n)

    def add(self, frames: int, episodes: int) -> None:
        """Show that this many more frames are stored, and this many more episodes finished."""
        self._frames, self._episodes = self._frames + frames, self._episodes + episodes
        self.show(self._frames, self._episodes)


__all__ = ["ConversionProgress"]
