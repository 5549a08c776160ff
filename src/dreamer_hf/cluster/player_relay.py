"""A player's WebSocket at the proxy: passed on to an engine, and to another one when that dies."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import urlencode

from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from ..serve.auth import HttpError, check_access
from ..serve.serve_options import ServeOptions
from .fleet import Fleet, FleetEngine
from .proxy_metrics import ProxyMetrics

PASSED_ON = ("start", "seed", "format")
"""Parts of the query that the engine gets."""
STUCK_SECONDS = 0.25
"""A client whose connection takes no frame for that long gets the latest one next, and none of those in between."""
WAIT_SECONDS = 60.0
"""How long a player whose engine died waits for another one."""
ENGINE_DIED = "the engine of your dream has died: here is a new dream on another one."
ENGINE_REMOVED = "the engine of your dream was taken out of service: here is a new dream on another one."
FINAL_CODES = range(4000, 5000)
"""Codes with which an engine ends a session on purpose."""


class Outbox:
    """What an engine sent and the client has not received yet: messages in order, and frames that may be left out.

    Args:
        on_skipped: called with the number of frames that are left out, whenever some are.
    """

    def __init__(self, on_skipped: Callable[[int], object] = lambda number: None):
        self._on_skipped = on_skipped
        self._items: deque[str | bytes] = deque()
        self._added = asyncio.Event()
        self._sending_since: float | None = None

    def add(self, item: str | bytes) -> None:
        """Add a message (str) or a frame (bytes)."""
        is_stuck = self._sending_since is not None and time.monotonic() - self._sending_since > STUCK_SECONDS
        if isinstance(item, bytes) and is_stuck:
            messages = [each for each in self._items if isinstance(each, str)]
            self._on_skipped(len(self._items) - len(messages))
            self._items = deque(messages)
        self._items.append(item)
        self._added.set()

    async def send_all(self, websocket: WebSocket) -> None:
        """Send what is added, until cancelled."""
        while True:
            await self._added.wait()
            self._added.clear()
            while self._items:
                item = self._items.popleft()
                self._sending_since = time.monotonic()
                await (websocket.send_bytes(item) if isinstance(item, bytes) else websocket.send_text(item))
                self._sending_since = None


class PlayerRelay:
    """One WebSocket of a client, from its opening to its end.

    Args:
        websocket: of the client.
        fleet: the engines.
        options: of the server.
        metrics: counts frames that are left out, and changes of the engine.
    """

    def __init__(self, websocket: WebSocket, fleet: Fleet, options: ServeOptions, metrics: ProxyMetrics):
        self.websocket, self.fleet, self.options, self.metrics = websocket, fleet, options, metrics
        self.outbox = Outbox(metrics.skipped.inc)

    async def run(self) -> None:
        """Serve the player until one side ends it."""
        await self.websocket.accept()
        try:
            check_access(self.websocket, self.options.token)
            engine = self.fleet.emptiest()
        except HttpError as error:
            await self._close(4000 + error.status, error.message)
            return
        tasks = [asyncio.create_task(task) for task in (self._play(engine), self.outbox.send_all(self.websocket))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, HttpError):
                await self._close(4000 + result.status, result.message)
            elif isinstance(result, Exception) and not isinstance(
                result, (WebSocketDisconnect, asyncio.CancelledError)
            ):
                raise result

    async def _play(self, engine: FleetEngine) -> None:
        """Play on one engine after another, until the client leaves or an engine ends the session.

        Raises:
            HttpError: a refusal for the client.
            WebSocketDisconnect: the client has left.
        """
        while True:
            engine.sessions += 1
            ended = await self._play_on(engine)
            if ended is None:
                return
            if ended.code in FINAL_CODES:
                raise HttpError(ended.code - 4000, ended.reason)
            sentence = ENGINE_REMOVED if engine.is_drained else ENGINE_DIED
            self.fleet.suspect(engine)
            self.metrics.moves.inc()
            self.outbox.add(json.dumps({"type": "error", "error": sentence}))
            engine = await self._next_engine(engine)

    async def _next_engine(self, lost: FleetEngine) -> FleetEngine:
        """Return the emptiest engine but a lost one; wait for one if there is none."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                engine = self.fleet.emptiest()
                if engine is not lost:
                    return engine
            except HttpError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.2)

    async def _play_on(self, engine: FleetEngine) -> "_Ended | None":
        """Play on an engine; return how it ended the session, or None if the client left."""
        query = {name: self.websocket.query_params[name] for name in PASSED_ON if name in self.websocket.query_params}
        try:
            async with connect(
                f"ws://{engine.url}/play?{urlencode(query)}",
                additional_headers={"Authorization": f"Bearer {self.fleet.secret}"},
                max_size=None,
                compression=None,
                proxy=None,
                ping_interval=4,
                ping_timeout=8,
                close_timeout=1,
            ) as upstream:
                return await self._exchange(upstream, engine)
        except (OSError, InvalidHandshake, TimeoutError):
            return _Ended()

    async def _exchange(self, upstream: ClientConnection, engine: FleetEngine) -> "_Ended | None":
        receiving = asyncio.create_task(self._receive(upstream))
        passing = asyncio.create_task(self._pass_on(upstream))
        gone = asyncio.create_task(engine.gone.wait())
        tasks = (receiving, passing, gone)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if passing in done and passing.exception() is None:
            return None
        return receiving.result() if receiving in done else _Ended()

    async def _receive(self, upstream: ClientConnection) -> "_Ended":
        """Take what the engine sends; return how it ended."""
        final = ""
        try:
            async for item in upstream:
                if isinstance(item, str) and '"final"' in item:
                    final = json.loads(item).get("error", "")  # it is sent again when the connection is closed
                else:
                    self.outbox.add(item)
        except ConnectionClosed:
            pass
        return _Ended(upstream.close_code, final or upstream.close_reason or "")

    async def _pass_on(self, upstream: ClientConnection) -> None:
        """Pass on what the client sends, until it leaves."""
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            await upstream.send(text if text is not None else message.get("bytes") or b"")

    async def _close(self, code: int, reason: str) -> None:
        try:
            await self.websocket.send_json({"type": "error", "error": reason, "final": True})
            await self.websocket.close(code, reason[:100])
        except (WebSocketDisconnect, RuntimeError):  # the client has left already
            pass


class _Ended:
    """How an engine ended a session.

    Attributes:
        code: of the closed connection; None if it broke.
        reason: sentence for the client, if the engine gave one.
    """

    def __init__(self, code: int | None = None, reason: str = ""):
        self.code, self.reason = code, reason


__all__ = ["ENGINE_DIED", "ENGINE_REMOVED", "Outbox", "PlayerRelay"]
