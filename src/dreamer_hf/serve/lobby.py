"""Who is in: lets sessions in and out, and sends away those who have forgotten that they came."""

import asyncio
import time

from .engine import Engine
from .guard import Refused
from .metrics import Metrics
from .recording import Recording
from .sessions import Player, Policy, Session


class Lobby:
    """The sessions of a server, by their secret names.

    Args:
        engine: dreams for them.
        max_sessions: at the same time.
        idle_seconds: after which a policy that says nothing, and a player who stays paused, lose their places.
        metrics: told what happens.
    """

    def __init__(self, engine: Engine, max_sessions: int, idle_seconds: float, metrics: Metrics):
        self.engine, self.max_sessions, self.idle_seconds, self.metrics = engine, max_sessions, idle_seconds, metrics
        self._sessions: dict[str, Session] = {}

    def enter(self, session: Session) -> None:
        """Gives a session a place, or refuses when there is none."""
        if len(self._sessions) >= self.max_sessions:
            self.metrics.refused.labels("full").inc()
            raise Refused(503, f"all {self.max_sessions} places are taken: try again later.")
        self._sessions[session.id] = session
        self.metrics.sessions.labels(session.kind).inc()
        self.metrics.opened.labels(session.kind).inc()
        self.engine.add(session)

    def leave(self, session: Session) -> None:
        """Frees a place; a second time does nothing."""
        if self._sessions.pop(session.id, None) is not None:
            self.metrics.sessions.labels(session.kind).dec()
            self.engine.remove(session)

    def policy(self, name: str) -> Policy | None:
        """The policy of that name, heard just now; None if there is none."""
        session = self._sessions.get(name)
        if not isinstance(session, Policy):
            return None
        session.heard_at = time.monotonic()
        return session

    def recording_of(self, name: str) -> Recording | None:
        """The recording of the player of that name; None if there is none."""
        session = self._sessions.get(name)
        return session.recording if isinstance(session, Player) else None

    async def watch(self) -> None:
        """Sends the idle away, for as long as it runs."""
        while True:
            await asyncio.sleep(min(1.0, self.idle_seconds / 2))
            long_ago = time.monotonic() - self.idle_seconds
            for session in [s for s in self._sessions.values() if s.heard_at < long_ago]:
                if isinstance(session, Player) and session.paused:
                    session.failed(f"the game was paused for {self.idle_seconds:g} seconds: begin another one.")
                    session.announce()
                elif isinstance(session, Policy) and not session.busy:
                    self.leave(session)
