"""A player's WebSocket: JSON messages in, frames out."""

import asyncio
import time

from starlette.websockets import WebSocket, WebSocketDisconnect

from .auth import HttpError, check_access
from .protocol import IMAGE_FORMATS, Pause, Record, Step, pack_frame, read_message, read_start_request
from .service import Service
from .sessions import Input, Player, StartRequest

RESETS_PER_SECOND = 4.0
GRACE_SECONDS = 10  # messages at the limit for that long; a client that sends so many more loses its session
MAX_SINGLE_STEPS = 2  # single steps that may wait for a tick


class TokenBucket:
    """Passes `rate` messages per second on average, and as many together as two seconds bring (at least one)."""

    def __init__(self, rate: float):
        self.rate, self.capacity = rate, max(1.0, 2 * rate)
        self._tokens, self._filled_at = self.capacity, time.monotonic()

    def take(self) -> bool:
        """Return whether one more message is within the limit."""
        now = time.monotonic()
        self._tokens = min(self.capacity, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class PlayerConnection:
    """One WebSocket, from its opening to its end."""

    def __init__(self, websocket: WebSocket, service: Service):
        self.websocket, self.service = websocket, service
        self.image_format = websocket.query_params.get("format", "jpeg")
        self._messages = TokenBucket(service.options.max_messages_per_second)
        self._resets = TokenBucket(RESETS_PER_SECOND)
        self._num_excess, self._last_warned = 0, 0.0

    async def run(self) -> None:
        """Serve the player until one side ends it. The place is free afterwards, whatever happens."""
        await self.websocket.accept()  # a page can only be given a reason on an open WebSocket
        try:
            player = self._enter()
        except HttpError as error:
            await self._close(error)
            return
        try:
            await self._send_json({"type": "hello", "session": player.id, **self.service.description})
            await self._serve(player)
        except HttpError as error:
            await self._close(error)
        except WebSocketDisconnect:
            pass
        finally:
            self.service.leave(player)
            if player.recording is not None:
                player.recording.discard()

    def _enter(self) -> Player:
        service, query = self.service, self.websocket.query_params
        check_access(self.websocket, service.options.token)
        if self.image_format not in IMAGE_FORMATS:
            raise HttpError(
                400, f"unknown format {self.image_format!r:.20}: choose one of {', '.join(IMAGE_FORMATS)}."
            )
        try:
            values = {name: int(query[name]) for name in ("start", "seed") if name in query}
            start_request = read_start_request(values, len(service.dreams.starts))
        except ValueError as error:
            raise HttpError(400, str(error)) from error
        player = Player(start_request, service.dreams.space, service.dreams.fps, service.options.control)
        service.enter(player)
        return player

    async def _serve(self, player: Player) -> None:
        """Send and receive until one of the two ends or fails."""
        tasks = [asyncio.create_task(task) for task in (self._send_frames(player), self._receive(player))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _send_frames(self, player: Player) -> None:
        """Send the latest frame whenever there is a new one and the previous one has left."""
        last_sent = 0
        while True:
            await player.updated.wait()
            player.updated.clear()
            if player.error is not None:
                raise HttpError(500, player.error)
            latest = player.latest
            if latest.number > last_sent:
                self.service.metrics.skipped.inc(latest.number - last_sent - 1)
                last_sent = latest.number
                quality = self.service.options.jpeg_quality
                await self.websocket.send_bytes(pack_frame(latest, self.image_format, quality))

    async def _receive(self, player: Player) -> None:
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            player.last_seen = time.monotonic()
            if not self._messages.take():
                await self._rate_limited()
                continue
            try:
                await self._handle(player, message.get("text") or message.get("bytes") or "")
            except ValueError as error:
                self.service.metrics.refused.labels("message").inc()
                await self._send_json({"type": "error", "error": str(error)})

    async def _rate_limited(self) -> None:
        """Drop a message. Warn once a second; end the session when there are far too many."""
        limit, now = self.service.options.max_messages_per_second, time.monotonic()
        self.service.metrics.refused.labels("rate").inc()
        self._num_excess += 1
        warning = f"more than {limit:g} messages per second: the others are ignored."
        if self._num_excess > GRACE_SECONDS * limit:
            raise HttpError(429, warning)
        if now - self._last_warned > 1:
            self._last_warned = now
            await self._send_json({"type": "error", "error": warning})

    async def _handle(self, player: Player, text: str | bytes) -> None:
        size, limit = len(text.encode() if isinstance(text, str) else text), self.service.options.max_message_bytes
        if size > limit:
            raise ValueError(f"a message of {size} bytes is too long: send {limit} at most.")
        message = read_message(text, self.service.dreams.space, len(self.service.dreams.starts))
        if isinstance(message, Input):
            player.input = message  # waits for the next tick
            return
        if isinstance(message, Record):
            await self._record(player, message.on)
        elif isinstance(message, StartRequest):
            if not self._resets.take():
                raise ValueError(f"more than {RESETS_PER_SECOND:g} resets per second: wait a moment.")
            player.start_request = message
        else:
            _pause_or_step(player, message)
            await self._send_json({"type": "paused", "paused": player.paused})
        self.service.engine.wake()

    async def _record(self, player: Player, on: bool) -> None:
        recording = player.recording
        is_running = recording is not None and not recording.finished
        if on and not is_running:
            if recording is not None:
                recording.discard()
            player.recording = self.service.new_recording()
            await self._send_json({"type": "recording", "on": True})
        elif is_running and not on:
            await asyncio.wrap_future(recording.finish())
            url = f"/recordings/{player.id}/{recording.path.name}" if recording.path.exists() else None
            await self._send_json({"type": "recording", "on": False, "url": url})

    async def _send_json(self, message: dict) -> None:
        await self.websocket.send_json(message)

    async def _close(self, error: HttpError) -> None:
        try:
            await self._send_json({"type": "error", "error": error.message, "final": True})
            await self.websocket.close(4000 + error.status, error.message[:100])
        except (WebSocketDisconnect, RuntimeError):  # the client has left already
            pass


def _pause_or_step(player: Player, message: Pause | Step) -> None:
    if isinstance(message, Step):
        player.single_steps = min(player.single_steps + 1, MAX_SINGLE_STEPS) if player.paused else 1
        player.paused = True
    else:
        player.paused, player.single_steps = message.paused, 0
