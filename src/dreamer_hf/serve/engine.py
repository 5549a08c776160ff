"""The worker thread that dreams for everybody, at the world's own pace."""

import asyncio
import logging
import random
import threading
import time

from .dreams import Dreams
from .messages import MAX_SEED, Beginning
from .metrics import Metrics
from .sessions import Session

log = logging.getLogger(__name__)
FAILURE = "the server failed at this dream: begin another session."


class Engine:
    """Steps whoever wants a frame as one batch: players together at every tick, policies as soon as they have acted.

    A tick that comes late shortens the wait for the next one, but never by more than a period: a slow machine plays
    slowly, without bursts.

    Args:
        dreams: of the world.
        fps: ticks a second while somebody plays.
        metrics: told what happens.
    """

    def __init__(self, dreams: Dreams, fps: float, metrics: Metrics):
        self.dreams, self.fps, self.metrics = dreams, fps, metrics
        self._period, self._due = 1 / fps, 0.0
        self._sessions: dict[Session, None] = {}  # in the order in which they came
        self._gone: list[Session] = []
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._stopping = False
        self._next_start = 0
        self._thread = threading.Thread(target=self._run, name="dreamer-engine", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to work; sessions are told about their frames in the given loop."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the frame at hand."""
        self._stopping = True
        self._woken.set()
        self._thread.join()

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def add(self, session: Session) -> None:
        """Lets a session in: its dream begins at once."""
        with self._lock:
            self._sessions[session] = None
        self._woken.set()

    def remove(self, session: Session) -> None:
        """Frees a session's row (no later than after the frame at hand)."""
        with self._lock:
            if session in self._sessions:
                del self._sessions[session]
                self._gone.append(session)
        self._woken.set()

    def wake(self) -> None:
        """Says that a session wants something that cannot wait for the next tick."""
        self._woken.set()

    def _run(self) -> None:
        while not self._stopping:
            tick = self._wait()
            with self._lock:
                sessions, gone, self._gone = list(self._sessions), self._gone, []
            for session in gone:
                self._end(session)
            begun = self._begin(sessions)  # these show their first frame before they go on
            touched = begun + self._step([session for session in sessions if session not in begun], tick)
            if touched and not self._stopping:
                self._loop.call_soon_threadsafe(_announce, touched)

    def _wait(self) -> bool:
        """Waits until there may be something to do; returns whether a tick is due."""
        with self._lock:
            playing = any(session.running() for session in self._sessions)
        if not playing:
            self._woken.wait()
        elif (left := self._due - time.perf_counter()) > 0:
            self._woken.wait(left)
        self._woken.clear()
        now = time.perf_counter()
        if now < self._due:
            return False
        self._due = max(self._due, now - self._period) + self._period
        return True

    def _begin(self, sessions: list[Session]) -> list[Session]:
        """Begins the dreams that are asked for; returns whose."""
        asking = [session for session in sessions if session.beginning is not None]
        for session in asking:
            beginning, session.beginning = session.beginning, None
            self._end(session)
            try:
                session.dream = self.dreams.begin(self._start(beginning), self._seed(beginning))
                session.dreamt(begun=True)
            except Exception:
                self._fail([session])
        return asking

    def _step(self, sessions: list[Session], tick: bool) -> list[Session]:
        """Dreams a frame for all who want one; returns who they are."""
        actions = {}
        for session in sessions:
            if session.dream is not None and (action := session.next_action(tick)) is not None:
                actions[session] = action
        acting = list(actions)
        if not acting:
            return []
        begun = time.perf_counter()
        try:
            self.dreams.step([session.dream for session in acting], list(actions.values()))
            for session in acting:
                session.dreamt(begun=False)
        except Exception:
            self._fail(acting)
        self.metrics.step_seconds.observe(time.perf_counter() - begun)
        self.metrics.frames.inc(len(acting))
        return acting

    def _fail(self, sessions: list[Session]) -> None:
        """Our own bug, or a full memory: these sessions end, the server and the others go on."""
        log.exception("a step failed")
        self.metrics.failures.inc()
        for session in sessions:
            self._end(session)
            session.failed(FAILURE)

    def _end(self, session: Session) -> None:
        if session.dream is not None:
            self.dreams.end(session.dream)
            session.dream = None

    def _start(self, beginning: Beginning) -> int:
        if beginning.start is not None:
            return beginning.start
        self._next_start += 1
        return (self._next_start - 1) % len(self.dreams.starts)

    def _seed(self, beginning: Beginning) -> int:
        return random.randint(0, MAX_SEED) if beginning.seed is None else beginning.seed


def _announce(sessions: list[Session]) -> None:
    for session in sessions:
        session.announce()
