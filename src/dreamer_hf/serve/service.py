"""A served world: the engine, the sessions and their recordings. Built once and handed to every route."""

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..dreams import Dreams
from ..play.controls import KEY_PAIRS
from ..state_space import StateSpace
from ..threads import ThreadChoice
from ..trust import load_trust
from .auth import HttpError
from .engine import Engine
from .recording import Recording
from .serve_options import ServeOptions
from .server_metrics import ServerMetrics
from .sessions import Player, Policy, Session

TYPICAL_PLAYERS = 4  # that the number of CPU threads is chosen for


class Service:
    """Everything behind the routes.

    Args:
        world: the world to serve, a `DreamerWorldModel` in eval mode or an `OnnxWorld`.
        starts: start frames of its dreams.
        options: of the server.
        prefix: beginning of the secret names of its sessions, by which a proxy tells several servers apart.

    Attributes:
        description: what clients need to know about the world, for JSON.
        sessions: the sessions by their secret names.

    Raises:
        ValueError: the options, the world and the start frames do not fit each other, or the world has no trust model
            although the options ask for trust.
    """

    def __init__(self, world, starts, options: ServeOptions, prefix: str = ""):
        options.check()
        self.options, self._prefix = options, prefix
        self.metrics = ServerMetrics()
        trust = load_trust(options.model) if options.trust else None
        self.dreams = Dreams(world, starts, options.num_inference_steps, trust)
        self.engine = Engine(self.dreams, self.metrics)
        self.description = describe(self.dreams, options.model)
        self.sessions: dict[str, Session] = {}
        self._recordings = tempfile.TemporaryDirectory(prefix="dreamer_recordings_")
        self._encoder = ThreadPoolExecutor(1, "dreamer-recorder")

    def choose_threads(self) -> ThreadChoice | None:
        """Set the number of CPU threads to what the options say, or to what suits a few players of this world."""
        rows = range(min(TYPICAL_PLAYERS, self.options.max_sessions))
        return self.dreams.choose_threads(self.dreams.begin([0 for _ in rows], rows), self.options.threads)

    def compile(self) -> None:
        """Compile rollouts of 1, 2, 4, ... rows, as many as there are places.

        Raises:
            ValueError: this world or this machine cannot do that.
        """
        largest = (self.options.max_sessions - 1).bit_length()
        self.engine.compile([2**power for power in range(largest + 1)])

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Dream while the block runs. The recordings are deleted at its end."""
        with self._recordings:
            self.engine.start(asyncio.get_running_loop())
            watch = asyncio.create_task(self._end_idle_sessions())
            try:
                yield
            finally:
                watch.cancel()
                self.engine.stop()
                self._encoder.shutdown(cancel_futures=True)

    def enter(self, session: Session) -> None:
        """Give a session a place.

        Raises:
            HttpError: all places are taken.
        """
        if len(self.sessions) >= self.options.max_sessions:
            self.metrics.refused.labels("full").inc()
            raise HttpError(503, f"all {self.options.max_sessions} places are taken: try again later.")
        session.id = self._prefix + session.id
        self.sessions[session.id] = session
        self.metrics.sessions.labels(session.kind).inc()
        self.metrics.opened.labels(session.kind).inc()
        self.engine.add(session)

    def leave(self, session: Session) -> None:
        """Free the place of a session, if it still has one."""
        if self.sessions.pop(session.id, None) is not None:
            self.metrics.sessions.labels(session.kind).dec()
            self.engine.remove(session)

    def policy(self, name: str) -> Policy | None:
        """Return the policy with that name, and note that it was just seen; None if there is none."""
        session = self.sessions.get(name)
        if not isinstance(session, Policy):
            return None
        session.last_seen = time.monotonic()
        return session

    def recording_of(self, name: str) -> Recording | None:
        """Return the recording of the player with that name; None if there is none."""
        session = self.sessions.get(name)
        return session.recording if isinstance(session, Player) else None

    def new_recording(self) -> Recording:
        """Return an empty recording."""
        path, fps = Path(self._recordings.name, f"dream-{secrets.token_hex(4)}.mp4"), self.dreams.fps
        return Recording(path, fps, round(self.options.max_recording_seconds * fps), self._encoder)

    async def _end_idle_sessions(self) -> None:
        """End silent policies and players who stay paused, for as long as it runs."""
        idle_seconds = self.options.idle_seconds
        while True:
            await asyncio.sleep(min(1.0, idle_seconds / 2))
            limit = time.monotonic() - idle_seconds
            for session in [session for session in self.sessions.values() if session.last_seen < limit]:
                if isinstance(session, Player) and session.paused:
                    session.fail(f"the game was paused for {idle_seconds:g} seconds: start another one.")
                    session.notify()
                elif isinstance(session, Policy) and not session.is_waiting:
                    self.leave(session)


def describe(dreams: Dreams, model: str) -> dict:
    """Return what clients need to know about a world, for JSON: name, size, rate, starts, cameras, actions and state
    in raw units, and whether frames come with their trust."""
    space, cameras = dreams.space, dreams.engine.camera_names
    return {
        # Visitors need a name, and should not see where it lies on this machine.
        "model": Path(model).resolve().name if Path(model).exists() else model,
        "frame_size": dreams.frame_size,
        "fps": dreams.fps,
        "num_starts": len(dreams.starts),
        "cameras": None if cameras is None else list(cameras),
        "state": _describe_state(dreams.state_space),
        "trust": dreams.trust is not None,
        "actions": {
            "names": list(space.names),
            "units": None if space.units is None else list(space.units),
            "low": space.low.tolist(),
            "high": space.high.tolist(),
            "rest": space.rest.tolist(),
            "discrete": space.discrete.tolist(),
            "relative": space.is_relative,
            "keys": [list(pair) for pair in KEY_PAIRS[: space.size]],
        },
    }


def _describe_state(space: StateSpace) -> dict | None:
    if not len(space):
        return None
    return {
        "names": list(space.names),
        "units": None if space.units is None else list(space.units),
        "low": space.low.tolist(),
        "high": space.high.tolist(),
    }
