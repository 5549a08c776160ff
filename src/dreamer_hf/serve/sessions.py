"""Who dreams: players, who are paced, and policies, who step when they like.

Two threads meet here. The event loop owns a session; the engine's thread calls the methods that say so, and changes
what they change. Whatever crosses over is replaced whole, never altered.
"""

import asyncio
import secrets
import time
from typing import NamedTuple

import numpy as np

from ..action_space import ActionSpace
from ..play.controls import make_control
from .dreams import Dream
from .messages import Beginning, Hand
from .recording import Recording


class Shown(NamedTuple):
    """One frame of a session.

    Attributes:
        frame: uint8 (H, W, 3) RGB.
        action: float32 (A,), the raw action that led to it.
        step: frames dreamt since the start frames.
        start, seed: where the dream began.
        seq: number of the player's message that the action came from.
        number: counts the frames of the session.
    """

    frame: np.ndarray
    action: np.ndarray
    step: int
    start: int
    seed: int
    seq: int = 0
    number: int = 0


class SessionFailed(RuntimeError):
    """The server failed; the message is for the client."""


class Session:
    """What the engine needs of everybody.

    Attributes:
        id: a secret name.
        beginning: where the engine shall begin a dream before the next step; None: nowhere, the dream goes on.
        dream: set by the engine.
        heard_at: when the client last said something, in seconds of `time.monotonic`.
    """

    kind = ""

    def __init__(self, beginning: Beginning):
        self.id = secrets.token_urlsafe(16)
        self.beginning: Beginning | None = beginning
        self.dream: Dream | None = None
        self.heard_at = time.monotonic()

    def running(self) -> bool:
        """Whether the session wants a frame at every tick."""
        return False

    def next_action(self, tick: bool) -> np.ndarray | None:
        """In the engine's thread: the raw action of a frame to dream now; None to hold still."""
        raise NotImplementedError

    def dreamt(self, begun: bool) -> None:
        """In the engine's thread: a frame has come, or the first one of a dream that has begun."""
        raise NotImplementedError

    def failed(self, words: str) -> None:
        """In either thread: the session is over, because of the server."""
        raise NotImplementedError

    def announce(self) -> None:
        """In the event loop, after `dreamt` or `failed`."""
        raise NotImplementedError


class Player(Session):
    """A person: gets a frame at every tick, led by what the hand does then. Slow readers miss frames, and no more.

    Attributes:
        shown: the latest frame.
        news: set whenever there is something for the client.
        error: why the session is over, or None.
    """

    kind = "player"

    def __init__(self, beginning: Beginning, space: ActionSpace, fps: float, control: str):
        super().__init__(beginning)
        self.hand = Hand(np.zeros(space.size, np.float32))
        self.paused = False
        self.steps_wanted = 0
        self.shown: Shown | None = None
        self.news = asyncio.Event()
        self.error: str | None = None
        self.recording: Recording | None = None
        self._stick, self._pointer = (make_control(space, fps, control, pointer) for pointer in (False, True))
        self._by_stick = True

    def running(self) -> bool:
        return self.error is None and not (self.paused and self.steps_wanted == 0)

    def next_action(self, tick: bool) -> np.ndarray | None:
        if not tick or not self.running():
            return None
        if self.paused:
            self.steps_wanted -= 1
        hand = self.hand
        self._seq = hand.seq
        by_stick = hand.action is None and not hand.pointer
        if by_stick and not self._by_stick:
            self._stick.resume_from(self.dream.action)
        self._by_stick = by_stick
        if hand.action is not None:
            return hand.action
        return (self._pointer if hand.pointer else self._stick)(hand.axes)

    def dreamt(self, begun: bool) -> None:
        dream, number = self.dream, 1 if self.shown is None else self.shown.number + 1
        if begun:
            self._seq = self.hand.seq
            self._stick.resume_from(dream.action)
        self.shown = Shown(dream.frame, dream.action, dream.step, dream.start, dream.seed, self._seq, number)
        if self.recording is not None and not begun:
            self.recording.add(dream.frame)

    def failed(self, words: str) -> None:
        self.error = words

    def announce(self) -> None:
        self.news.set()


class Policy(Session):
    """A program: dreams one frame for every action that it gives, and waits for it."""

    kind = "policy"

    def __init__(self, beginning: Beginning):
        super().__init__(beginning)
        self._action: np.ndarray | None = None
        self._outcome: Shown | SessionFailed | None = None
        self._waiting: asyncio.Future | None = asyncio.get_running_loop().create_future()  # for the beginning

    @property
    def busy(self) -> bool:
        """Whether it waits for a frame."""
        return self._waiting is not None

    def ask(self, action: np.ndarray | None = None, beginning: Beginning | None = None) -> None:
        """Asks for a frame, or for another beginning; then the engine has to be woken."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._action, self.beginning = action, beginning

    async def answer(self) -> Shown:
        """The frame asked for.

        Raises:
            SessionFailed: the server failed.
        """
        return await asyncio.shield(self._waiting)  # a client that goes away takes only itself away

    def next_action(self, tick: bool) -> np.ndarray | None:
        action, self._action = self._action, None
        return action

    def dreamt(self, begun: bool) -> None:
        dream = self.dream
        self._outcome = Shown(dream.frame, dream.action, dream.step, dream.start, dream.seed)

    def failed(self, words: str) -> None:
        self._outcome = SessionFailed(words)

    def announce(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.cancelled():
            return
        if isinstance(self._outcome, SessionFailed):
            waiting.set_exception(self._outcome)
        else:
            waiting.set_result(self._outcome)
