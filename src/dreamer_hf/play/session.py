"""The state of a game in a world: a dream, its snapshots, and what is led through the same actions."""

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple, Protocol

import numpy as np

from ..dreams import Dream, Dreams
from .action_sources import ActionSource

REWIND_FRAMES = 10
"""Frames that a rewind goes back; also the distance between snapshots."""
MAX_SNAPSHOTS = 6


class Recorder(Protocol):
    """Takes the steps of a session."""

    def add(
        self,
        before: np.ndarray,
        action: np.ndarray,
        after: np.ndarray,
        states: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
        trusts: tuple[float | None, float | None] = (None, None),
    ) -> None:
        """Take one step: the frame that was shown, the raw action, the new frame; frames are uint8 (H, W, 3) RGB.

        `states` are those before and after it, float32 (S,), of a world that has a state; `trusts` those of the
        frames, of dreams that have a trust.
        """

    def cut(self) -> None:
        """Prepare for a step that does not continue the last one, after a reset or a rewind."""

    def close(self) -> None:
        """Finish the recording."""


class SideBySide(Protocol):
    """What goes through the same actions as the dream, such as the simulator that the dream imitates.

    Attributes:
        frame: uint8 (H, W, 3) RGB, what it shows now.
    """

    frame: np.ndarray

    def begin(self, start_index: int) -> None:
        """Follow a dream that begins from these start frames."""

    def advance(self, action: np.ndarray, dreamed: np.ndarray) -> None:
        """Follow a step of the dream: a raw action (A,) and the dreamed frame."""

    def rewind(self, step: int) -> None:
        """Follow the dream back to the state after this number of steps."""

    def status(self) -> str:
        """Return a short text about the current state."""


class Snapshot(NamedTuple):
    """A copy of a dream, and the actions taken since."""

    dream: Dream
    actions: list[np.ndarray]


class PlaySession:
    """Steps a dream with the actions of a source; can continue with other start frames, and go back.

    Every dream is reproducible: each has its own seed, and a rewind restores the state of its noise.

    Args:
        dreams: of the world to play, with its start frames.
        source: gives the action of each step.
        recorders: take every step; closed by `close`, which a `with` block calls in any case.
        seed: of the noise of the first dream; each reset takes the next number.
        side_by_side: goes through the same steps, resets and rewinds as the dream.
        dream: a dream to restart instead of starting one, for example because its rollout is compiled.

    Attributes:
        dream: the current dream: its frame, step, start, and last action.
    """

    def __init__(
        self,
        dreams: Dreams,
        source: ActionSource,
        recorders: Sequence[Recorder] = (),
        seed: int = 0,
        side_by_side: SideBySide | None = None,
        dream: Dream | None = None,
    ):
        self.dreams = dreams
        self.source = source
        self.recorders = list(recorders)
        self.side_by_side = side_by_side
        self.next_seed = seed
        self.dream = dream if dream is not None else dreams.begin([0], [seed])[0]
        self._begin(0)

    def __enter__(self) -> "PlaySession":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def advance(self) -> bool:
        """Dream one frame. Returns False, and does nothing, if the source has no more actions."""
        action = self.source.action(self.dream.step)
        if action is None:
            return False
        before, state, trust = self.dream.frame, self.dream.state, self.dream.trust
        self._step(action)
        if self.side_by_side is not None:
            self.side_by_side.advance(action, self.dream.frame)
        for recorder in self.recorders:
            after = self.dream
            recorder.add(before, action, after.frame, (state, after.state), (trust, after.trust))
        return True

    def next_start(self) -> None:
        """Begin a dream from the next start frames; after the last ones, from the first."""
        self._begin((self.dream.start + 1) % len(self.dreams.starts))
        self._cut()

    def rewind(self) -> None:
        """Go back ten frames, or as far as possible.

        There is a snapshot for every tenth frame only. The frames between it and the goal are generated again, with
        the same actions and the same noise, so they are the same.
        """
        goal = max(self.dream.step - REWIND_FRAMES, self._snapshots[0].dream.step)
        while self._snapshots[-1].dream.step > goal:
            self._snapshots.pop()
        snapshot = self._snapshots[-1]
        again = snapshot.actions[: goal - snapshot.dream.step]
        snapshot.actions.clear()
        self.dreams.rewind([self.dream], [snapshot.dream])
        for action in again:
            self._step(action)
        if self.side_by_side is not None:
            self.side_by_side.rewind(goal)
        self.source.resume_from(self.dream.action)
        self._cut()

    def close(self) -> None:
        """Finish every recording, even if another one fails."""
        with ExitStack() as stack:
            for recorder in self.recorders:
                stack.callback(recorder.close)

    def _begin(self, start_index: int) -> None:
        self.dreams.restart([self.dream], [start_index], [self.next_seed])
        self.next_seed += 1
        if self.side_by_side is not None:
            self.side_by_side.begin(start_index)
        self.source.resume_from(self.dream.action)
        self._snapshots: deque[Snapshot] = deque([self._snapshot()], maxlen=MAX_SNAPSHOTS)

    def _step(self, action: np.ndarray) -> None:
        self.dreams.step([self.dream], [action])
        self._snapshots[-1].actions.append(action)
        if self.dream.step % REWIND_FRAMES == 0:
            self._snapshots.append(self._snapshot())

    def _cut(self) -> None:
        for recorder in self.recorders:
            recorder.cut()

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.dreams.clone([self.dream])[0], [])
