"""Sessions: players get a frame at every tick; policies get one frame for each action.

Two threads meet here. The event loop owns a session; the engine's thread calls `next_action`, `on_frame` and `fail`.
Values that both threads use are replaced as a whole, never modified.

Shapes: A action components, S state components, H, W pixels.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..action_space import ActionSpace
from ..dreams import Dream
from ..play.controls import make_control
from .recording import Recording


@dataclass(frozen=True)
class StartRequest:
    """Where a dream should start.

    Attributes:
        start: index of the start frames; None lets the server choose.
        seed: seed of the noise; None lets the server choose.
    """

    start: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Input:
    """A player's input. It holds until the next one.

    Attributes:
        axes: float32 (A,) in [-1, 1].
        pointer: whether the axes are a position in the image rather than the deflection of a stick.
        action: float32 (A,), a raw action that replaces the axes; None to use the axes.
        seq: the client's number of this message, sent back with the frames that it led to.
    """

    axes: np.ndarray
    pointer: bool = False
    action: np.ndarray | None = None
    seq: int = 0


class SessionFrame(NamedTuple):
    """One frame of a session.

    Attributes:
        frame: uint8 (H, W, 3) RGB, several cameras side by side.
        action: float32 (A,), the raw action that led to it.
        step: number of frames since the start frames.
        start, seed: where the dream started, and the seed of its noise.
        seq: number of the player's input that the action came from.
        number: counts the frames of the session, from 1.
        state: float32 (S,), the state of the frame in the units of the data; None for a world without a state.
        trust: how far to believe the frame, in [0, 1]; None if the server does not know.
    """

    frame: np.ndarray
    action: np.ndarray
    step: int
    start: int
    seed: int
    seq: int = 0
    number: int = 0
    state: np.ndarray | None = None
    trust: float | None = None


class SessionError(RuntimeError):
    """A session ended because of the server; the message is for the client."""


class Session:
    """What the engine needs from players and policies.

    Attributes:
        id: secret name.
        start_request: where the engine should start a dream before the next step; None to continue the current one.
        dream: set by the engine.
        last_seen: when the client last sent something, in seconds of `time.monotonic`.
    """

    kind = ""

    def __init__(self, start_request: StartRequest):
        self.id = secrets.token_urlsafe(16)
        self.start_request: StartRequest | None = start_request
        self.dream: Dream | None = None
        self.last_seen = time.monotonic()

    @property
    def is_playing(self) -> bool:
        """Whether the session wants a frame at every tick."""
        return False

    def next_action(self, tick_due: bool) -> np.ndarray | None:
        """Engine's thread: return the raw action (A,) of a frame to dream now; None to wait."""
        raise NotImplementedError

    def on_frame(self, is_start: bool) -> None:
        """Engine's thread: take the new frame of `dream`, which is a start frame or the result of `next_action`."""
        raise NotImplementedError

    def fail(self, message: str) -> None:
        """Either thread: end the session because of the server."""
        raise NotImplementedError

    def notify(self) -> None:
        """Event loop: pass on what `on_frame` or `fail` left."""
        raise NotImplementedError

    def _session_frame(self, seq: int = 0, number: int = 0) -> SessionFrame:
        dream = self.dream
        place = dream.step, dream.start, dream.seed
        return SessionFrame(dream.frame, dream.action, *place, seq, number, dream.state, dream.trust)


class Player(Session):
    """A person, who gets a frame at every tick. A slow reader misses frames; nobody else notices.

    Attributes:
        input: the latest input.
        paused: whether no frames are wanted except for single steps.
        single_steps: single steps that wait for a tick.
        latest: the latest frame.
        updated: set when there is something to send.
        error: why the session ended, or None.
        recording: the current or the last recording.
    """

    kind = "player"

    def __init__(self, start_request: StartRequest, space: ActionSpace, fps: float, control: str):
        super().__init__(start_request)
        self.input = Input(np.zeros(space.size, np.float32))
        self.paused = False
        self.single_steps = 0
        self.latest: SessionFrame | None = None
        self.updated = asyncio.Event()
        self.error: str | None = None
        self.recording: Recording | None = None
        self._stick, self._pointer = (make_control(space, fps, control, pointer) for pointer in (False, True))
        self._stick_was_used = True
        self._seq = 0

    @property
    def is_playing(self) -> bool:
        return self.error is None and not (self.paused and self.single_steps == 0)

    def next_action(self, tick_due: bool) -> np.ndarray | None:
        if not tick_due or not self.is_playing:
            return None
        if self.paused:
            self.single_steps -= 1
        player_input = self.input
        self._seq = player_input.seq
        uses_stick = player_input.action is None and not player_input.pointer
        if uses_stick and not self._stick_was_used:
            self._stick.resume_from(self.dream.action)
        self._stick_was_used = uses_stick
        if player_input.action is not None:
            return player_input.action
        return (self._pointer if player_input.pointer else self._stick)(player_input.axes)

    def on_frame(self, is_start: bool) -> None:
        if is_start:
            self._seq = self.input.seq
            self._stick.resume_from(self.dream.action)
        elif self.recording is not None:
            self.recording.add(self.dream.frame)
        self.latest = self._session_frame(self._seq, 1 if self.latest is None else self.latest.number + 1)

    def fail(self, message: str) -> None:
        self.error = message

    def notify(self) -> None:
        self.updated.set()


class Policy(Session):
    """A program, which sends an action and waits for the frame that it leads to."""

    kind = "policy"

    def __init__(self, start_request: StartRequest):
        super().__init__(start_request)
        self._action: np.ndarray | None = None
        self._outcome: SessionFrame | SessionError | None = None
        self._waiting: asyncio.Future | None = asyncio.get_running_loop().create_future()  # for the start frame

    @property
    def is_waiting(self) -> bool:
        """Whether a frame was requested that has not arrived yet."""
        return self._waiting is not None

    def request(self, action: np.ndarray | None = None, start_request: StartRequest | None = None) -> None:
        """Request the frame of an action, or another start. The engine has to be woken afterwards."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._action, self.start_request = action, start_request

    async def answer(self) -> SessionFrame:
        """Return the requested frame when it is there.

        Raises:
            SessionError: the server failed.
        """
        return await asyncio.shield(self._waiting)  # a cancelled request must not cancel the frame

    def next_action(self, tick_due: bool) -> np.ndarray | None:
        action, self._action = self._action, None
        return action

    def on_frame(self, is_start: bool) -> None:
        self._outcome = self._session_frame()

    def fail(self, message: str) -> None:
        self._outcome = SessionError(message)

    def notify(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.cancelled():
            return
        if isinstance(self._outcome, SessionError):
            waiting.set_exception(self._outcome)
        else:
            waiting.set_result(self._outcome)
