"""The worker thread that steps the dreams of all sessions, at the frame rate of the world."""

import asyncio
import logging
import random
import threading
import time

from ..dreams import Dreams
from ..pacing import PacingClock
from ..seeded_noise import MAX_SEED
from .server_metrics import ServerMetrics
from .sessions import Session

FAILURE = "the server failed at this dream: start another session."
log = logging.getLogger(__package__)


class Engine:
    """Steps all sessions that want a frame as one batch: players at every tick, policies as soon as they have acted.

    Args:
        dreams: of the world; its frame rate sets the ticks.
        metrics: counts frames, steps and failures.
    """

    def __init__(self, dreams: Dreams, metrics: ServerMetrics):
        self.dreams, self.metrics = dreams, metrics
        self._clock = PacingClock(dreams.fps)
        self._sessions: dict[Session, None] = {}  # a set that keeps its order
        self._lock = threading.Lock()
        self._wake_up = threading.Event()
        self._stopping = False
        self._next_start = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="dreamer-engine", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread; sessions are notified in the given loop."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the current frame."""
        self._stopping = True
        self._wake_up.set()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def add(self, session: Session) -> None:
        """Add a session and start its dream."""
        with self._lock:
            self._sessions[session] = None
        self._wake_up.set()

    def remove(self, session: Session) -> None:
        """Remove a session; the row of its dream is free after the current frame at the latest."""
        with self._lock:
            self._sessions.pop(session, None)

    def wake(self) -> None:
        """Look at the sessions now: one of them wants something that cannot wait for the next tick."""
        self._wake_up.set()

    def _run(self) -> None:
        while not self._stopping:
            self._turn(self._wait())

    def _wait(self) -> bool:
        """Wait until there may be something to do; return whether a tick is due."""
        with self._lock:
            anybody_plays = any(session.is_playing for session in self._sessions)
        self._wake_up.wait(self._clock.seconds_left if anybody_plays else None)
        self._wake_up.clear()
        return self._clock.tick_if_due()

    def _turn(self, tick_due: bool) -> None:
        """Dream a frame for all sessions that want one, then start dreams until the next frame is due."""
        with self._lock:
            sessions = list(self._sessions)
        starting = [session for session in sessions if session.start_request is not None]
        # A session that is about to start shows its start frame before it is stepped.
        self._notify(self._step([session for session in sessions if session not in starting], tick_due))
        for number, session in enumerate(starting):
            # However many clients come and go, the others get their frames in between.
            if number > 0 and self._clock.seconds_left == 0:
                self._wake_up.set()
                break
            self._start(session)
            self._notify([session])

    def _start(self, session: Session) -> None:
        """Start the dream that a session asks for."""
        request, session.start_request = session.start_request, None
        session.dream = None
        start, seed = request.start, request.seed
        if start is None:
            start, self._next_start = self._next_start, (self._next_start + 1) % len(self.dreams.starts)
        try:
            (session.dream,) = self.dreams.begin([start], [random.randint(0, MAX_SEED) if seed is None else seed])
            session.on_frame(is_start=True)
        except Exception:
            self._fail([session])

    def _step(self, sessions: list[Session], tick_due: bool) -> list[Session]:
        """Dream a frame for all sessions that want one; return these."""
        actions = {}
        for session in sessions:
            if session.dream is not None and (action := session.next_action(tick_due)) is not None:
                actions[session] = action
        acting = list(actions)
        if not acting:
            return []
        started = time.perf_counter()
        try:
            self.dreams.step([session.dream for session in acting], list(actions.values()))
            for session in acting:
                session.on_frame(is_start=False)
        except Exception:
            self._fail(acting)
        self.metrics.step_seconds.observe(time.perf_counter() - started)
        self.metrics.frames.inc(len(acting))
        return acting

    def _fail(self, sessions: list[Session]) -> None:
        """End sessions because of a bug of ours or a lack of memory; the server and the other sessions continue."""
        log.exception("a step failed")
        self.metrics.failures.inc()
        for session in sessions:
            session.dream = None
            session.fail(FAILURE)

    def _notify(self, sessions: list[Session]) -> None:
        """Have sessions pass on what they got, in the event loop."""
        if sessions and not self._stopping:
            self._loop.call_soon_threadsafe(lambda: [session.notify() for session in sessions])
