"""The engines behind a proxy: started, watched, replaced when they die, drained when fewer are wanted."""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import ray

from ..data.files import first_line
from ..serve.auth import HttpError
from ..serve.serve_options import ServeOptions
from .engine_replica import EngineAddress, EngineReplica, EngineStatus
from .node_checks import alive_nodes
from .summed_metrics import Sums, add_metrics, counters_only, read_metrics

log = logging.getLogger(__package__)
STARTING, SERVING, DRAINING, GONE = "starting", "serving", "draining", "gone"
POLL_SECONDS = 1.0
ANSWER_SECONDS = 20.0
"""An engine that does not answer for that long counts as dead."""
MAX_FAILED_STARTS = 3
RETRY_SECONDS = 60.0
"""So many engines in a row may fail to start; then no more are started for a while, or until somebody asks."""


@dataclass(eq=False)
class FleetEngine:
    """One engine, as the proxy knows it.

    Attributes:
        name: beginning of the names of its sessions.
        actor: the engine.
        state: starting, serving, draining (no new sessions), or gone.
        address: where its server is, once it serves.
        sessions: number of its sessions, as it last said, and those that the proxy has opened since.
        metrics: as it last sent them.
        drain_until: when a draining engine ends, in seconds of `time.monotonic`.
        gone: set when it has died or was stopped.
    """

    name: str
    actor: Any
    state: str = STARTING
    address: EngineAddress | None = None
    sessions: int = 0
    metrics: Sums = field(default_factory=dict)
    drain_until: float = 0.0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_drained(self) -> bool:
        """Whether it was, or is being, taken out of service on purpose."""
        return self.drain_until > 0

    @property
    def url(self) -> str:
        """The address of its server without the scheme."""
        host = self.address.host
        return f"[{host}]:{self.address.port}" if ":" in host else f"{host}:{self.address.port}"

    def as_json(self) -> dict:
        """Return what operators need to know."""
        node = None if self.address is None else self.address.node
        return {"name": self.name, "state": self.state, "sessions": self.sessions, "node": node}


class Fleet:
    """All engines of a proxy.

    Args:
        options: of `dreamer serve`.
        num_engines: how many there should be.
        give_up: called if engines cannot be started and none has ever served: then nobody can play.

    Attributes:
        secret: what the engines require as a token.
        wanted: how many engines there should be.
        lost: how many have died.
        failure: why engines cannot be started, or None.
        has_served: whether any engine has ever served.
    """

    def __init__(self, options: ServeOptions, num_engines: int, give_up: Callable[[], object] = lambda: None):
        self.options, self.wanted, self._give_up = options, num_engines, give_up
        self.secret = secrets.token_urlsafe(32)
        self.lost = 0
        self.failure: str | None = None
        self.has_served = False
        self._engines: dict[str, FleetEngine] = {}
        self._number = self._failed_starts = 0
        self._retry_at = 0.0
        self._retired: Sums = {}
        self._tasks: set[asyncio.Task] = set()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Keep the engines running while the block runs."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            for task in (watch, *self._tasks):
                task.cancel()
            for engine in list(self._engines.values()):
                self._end(engine)

    @property
    def engines(self) -> list[FleetEngine]:
        """All engines that are not gone."""
        return list(self._engines.values())

    def find(self, session: str) -> FleetEngine | None:
        """Return the engine of a session by the session's name; None if it is gone."""
        engine = self._engines.get(session.partition(".")[0])
        return engine if engine is not None and engine.state in (SERVING, DRAINING) else None

    def emptiest(self) -> FleetEngine:
        """Return the engine that the next session should go to.

        Raises:
            HttpError: none serves.
        """
        serving = [engine for engine in self._engines.values() if engine.state == SERVING]
        if not serving:
            reason = self.failure or "they are starting"
            raise HttpError(503, f"no engine is ready ({reason}): try again later.")
        return min(serving, key=lambda engine: engine.sessions)

    def resize(self, num_engines: int) -> None:
        """Start engines, or drain the emptiest ones, until there are `num_engines`."""
        self.wanted, self.failure, self._failed_starts = num_engines, None, 0
        kept = [engine for engine in self._engines.values() if engine.state in (STARTING, SERVING)]
        kept.sort(key=lambda engine: (engine.state == SERVING, engine.sessions))
        for engine in kept[: max(0, len(kept) - num_engines)]:
            self._drain(engine)
        self._fill_up()

    def drain(self, name: str) -> bool:
        """Drain one engine, and want one less; return whether it exists."""
        engine = self._engines.get(name)
        if engine is None:
            return False
        if engine.state != DRAINING:
            self.wanted = max(0, self.wanted - 1)
            self._drain(engine)
        return True

    def suspect(self, engine: FleetEngine) -> None:
        """Look now whether an engine is alive: it did not answer somebody."""
        self._in_background(self._poll(engine))

    def metrics(self) -> Sums:
        """Return the sum of what all engines count, those that are gone included."""
        return add_metrics([self._retired, *(engine.metrics for engine in self._engines.values())])

    async def refresh(self) -> None:
        """Ask all engines for their metrics."""
        await asyncio.gather(*(self._poll(engine) for engine in self.engines))

    async def _watch(self) -> None:
        while True:
            self._fill_up()
            await self.refresh()
            for engine in self.engines:
                if engine.state == DRAINING and (not engine.sessions or time.monotonic() > engine.drain_until):
                    self._end(engine)
            await asyncio.sleep(POLL_SECONDS)

    def _fill_up(self) -> None:
        """Start the engines that are missing."""
        running = sum(engine.state in (STARTING, SERVING) for engine in self._engines.values())
        if self.failure and time.monotonic() > self._retry_at:
            self.failure, self._failed_starts = None, 0
        for _ in range(0 if self.failure else self.wanted - running):
            self._number += 1
            engine = FleetEngine(f"e{self._number}", self._new_actor(f"e{self._number}"))
            self._engines[engine.name] = engine
            self._in_background(self._start(engine))

    def _new_actor(self, name: str):
        has_gpus = any(node["Resources"].get("GPU") for node in alive_nodes())
        uses_gpu = has_gpus and self.options.device != "cpu" and self.options.engine != "onnx"
        resources = {"num_cpus": self.options.engine_cpus, "num_gpus": int(uses_gpu)}
        actor = ray.remote(max_restarts=0, max_concurrency=2, scheduling_strategy="SPREAD", **resources)(EngineReplica)
        return actor.remote(name, self.options, self.secret, os.getcwd())

    async def _start(self, engine: FleetEngine) -> None:
        try:
            engine.address = await engine.actor.start.remote()
        except ray.exceptions.RayTaskError as error:
            self._end(engine)
            if not isinstance(error.cause, (ValueError, OSError)):
                log.error("an engine failed to start", exc_info=error)
            self._failed_to_start(first_line(error.cause), is_certain=isinstance(error.cause, ValueError))
        except ray.exceptions.RayError:
            self._lose(engine)
            self._failed_to_start("engines die while they start: look at the logs of Ray.")
        else:
            self._failed_starts, self.has_served = 0, True
            if engine.state == STARTING:
                engine.state = SERVING

    def _failed_to_start(self, reason: str, is_certain: bool = False) -> None:
        """Note that an engine did not start; stop trying if the next one would fail likewise."""
        self._failed_starts += 1
        if is_certain or self._failed_starts >= MAX_FAILED_STARTS:
            self.failure, self._retry_at = reason, time.monotonic() + RETRY_SECONDS
            if not self.has_served:
                self._give_up()

    async def _poll(self, engine: FleetEngine) -> None:
        if engine.address is None or engine.state == GONE:
            return
        opened = engine.sessions
        try:
            status: EngineStatus = await asyncio.wait_for(engine.actor.status.remote(), ANSWER_SECONDS)
        except (ray.exceptions.RayError, asyncio.TimeoutError):
            self._lose(engine)
            return
        if not status.is_alive:
            self._lose(engine)
            return
        # Sessions that were opened while it answered are on top of what it says.
        engine.sessions = status.sessions + max(0, engine.sessions - opened)
        engine.metrics = read_metrics(status.metrics)

    def _drain(self, engine: FleetEngine) -> None:
        if engine.state == STARTING:
            self._end(engine)
            return
        engine.state, engine.drain_until = DRAINING, time.monotonic() + self.options.drain_seconds

    def _lose(self, engine: FleetEngine) -> None:
        if engine.state != GONE:
            self.lost += 1
            log.warning(f"engine {engine.name} died: its players get new dreams on other engines.")
            self._end(engine)

    def _end(self, engine: FleetEngine) -> None:
        if engine.state != GONE:
            self._retired = add_metrics([self._retired, counters_only(engine.metrics)])
            engine.state = GONE
            engine.gone.set()
            self._engines.pop(engine.name, None)
            ray.kill(engine.actor)

    def _in_background(self, work) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


__all__ = ["DRAINING", "GONE", "SERVING", "STARTING", "Fleet", "FleetEngine"]
