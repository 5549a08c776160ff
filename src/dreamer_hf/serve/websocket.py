"""A player's WebSocket: JSON messages in, frames out."""

import asyncio
import time

from starlette.websockets import WebSocket, WebSocketDisconnect

from .guard import Refused, check_access
from .limits import TokenBucket
from .messages import Beginning, Hand, Pause, Record, Step, read_beginning, read_message
from .pictures import FORMATS, pack
from .service import Service
from .sessions import Player

RESETS_PER_SECOND = 4.0
PATIENCE_SECONDS = 10  # at the limit; who sends that many messages too many is sent away
KEPT_STEPS = 2  # single steps that may wait


class PlayerConnection:
    """One WebSocket from its opening to its end."""

    def __init__(self, websocket: WebSocket, service: Service):
        self.websocket, self.service = websocket, service
        self._messages = TokenBucket(service.options.max_messages_per_second)
        self._resets = TokenBucket(RESETS_PER_SECOND)
        self._excess, self._told_at = 0, 0.0

    async def run(self) -> None:
        """Talks until one side ends it; whatever happens, the place is free afterwards."""
        await self.websocket.accept()  # only then can a page be told why it is refused
        try:
            player = self._enter()
        except Refused as refusal:
            await self._close(refusal)
            return
        try:
            await self._say({"type": "hello", "session": player.id, **self.service.description})
            await self._talk(player)
        except Refused as refusal:
            await self._close(refusal)
        except WebSocketDisconnect:
            pass
        finally:
            self.service.lobby.leave(player)
            if player.recording is not None:
                player.recording.discard()

    def _enter(self) -> Player:
        service, query = self.service, self.websocket.query_params
        check_access(self.websocket, service.options.token)
        self.format = query.get("format", "jpeg")
        if self.format not in FORMATS:
            raise Refused(400, f"unknown format {self.format!r:.20}: choose one of {', '.join(FORMATS)}.")
        try:
            wishes = {name: int(query[name]) for name in ("start", "seed") if name in query}
            beginning = read_beginning(wishes, len(service.dreams.starts))
        except ValueError as error:
            raise Refused(400, str(error)) from error
        player = Player(beginning, service.dreams.space, service.fps, service.options.control)
        service.lobby.enter(player)
        return player

    async def _talk(self, player: Player) -> None:
        """Sends and listens until one of the two has an end or a failure."""
        tasks = [asyncio.create_task(task) for task in (self._send(player), self._listen(player))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _send(self, player: Player) -> None:
        """Sends the latest frame whenever there is a new one and the last one is on its way."""
        last = 0
        while True:
            await player.news.wait()
            player.news.clear()
            if player.error is not None:
                raise Refused(500, player.error)
            shown = player.shown
            if shown.number > last:
                self.service.metrics.skipped.inc(shown.number - last - 1)
                last = shown.number
                await self.websocket.send_bytes(pack(shown, self.format, self.service.options.jpeg_quality))

    async def _listen(self, player: Player) -> None:
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            player.heard_at = time.monotonic()
            if not self._messages.take():
                await self._too_fast()
                continue
            try:
                await self._obey(player, message.get("text") or message.get("bytes") or "")
            except ValueError as error:
                self.service.metrics.refused.labels("message").inc()
                await self._say({"type": "error", "error": str(error)})

    async def _too_fast(self) -> None:
        """Drops a message; says so, once a second, or ends it."""
        limit, now = self.service.options.max_messages_per_second, time.monotonic()
        self.service.metrics.refused.labels("rate").inc()
        self._excess += 1
        words = f"more than {limit:g} messages a second: the rest is not heard."
        if self._excess > PATIENCE_SECONDS * limit:
            raise Refused(429, words)
        if now - self._told_at > 1:
            self._told_at = now
            await self._say({"type": "error", "error": words})

    async def _obey(self, player: Player, text: str | bytes) -> None:
        size, limit = len(text.encode() if isinstance(text, str) else text), self.service.options.max_message_bytes
        if size > limit:
            raise ValueError(f"a message of {size} bytes is too long: send {limit} at most.")
        message = read_message(text, self.service.dreams.space, len(self.service.dreams.starts))
        if isinstance(message, Hand):
            player.hand = message
        elif isinstance(message, Record):
            await self._record(player, message.on)
        elif isinstance(message, Beginning):
            if not self._resets.take():
                raise ValueError(f"more than {RESETS_PER_SECOND:g} resets a second: wait a moment.")
            player.beginning = message
        else:
            _pause_or_step(player, message)
            await self._say({"type": "paused", "paused": player.paused})
        if not isinstance(message, Hand):
            self.service.engine.wake()

    async def _record(self, player: Player, on: bool) -> None:
        recording = player.recording
        running = recording is not None and not recording.finished
        if on and not running:
            if recording is not None:
                recording.discard()
            player.recording = self.service.new_recording()
            await self._say({"type": "recording", "on": True})
        elif running and not on:
            await asyncio.wrap_future(recording.finish())
            url = f"/recordings/{player.id}/{recording.path.name}" if recording.path.exists() else None
            await self._say({"type": "recording", "on": False, "url": url})

    async def _say(self, message: dict) -> None:
        await self.websocket.send_json(message)

    async def _close(self, refusal: Refused) -> None:
        try:
            await self._say({"type": "error", "error": refusal.words, "final": True})
            await self.websocket.close(4000 + refusal.status, refusal.words[:100])
        except (WebSocketDisconnect, RuntimeError):  # it has gone by itself
            pass


def _pause_or_step(player: Player, message: Pause | Step) -> None:
    if isinstance(message, Step):
        player.steps_wanted = min(player.steps_wanted + 1, KEPT_STEPS) if player.paused else 1
        player.paused = True
    else:
        player.paused, player.steps_wanted = message.paused, 0
