"""Limits on connections that uvicorn does not have: how many there are, and how long a request may take to arrive."""

import asyncio
import contextlib
import logging
import time

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

try:
    import resource
except ModuleNotFoundError:  # Windows, where open files are not limited in this way
    resource = None

BACKLOG = 64  # connections that may wait to be accepted; after a failure, asyncio tries (and logs) that many times
RESERVED_FILES = BACKLOG + 32  # open files left for connections that are accepted together, recordings and libraries
MAX_PIPELINED_BYTES = 2**16  # of requests that are sent before the last one is answered; uvicorn keeps any number
MAX_UNREAD_BYTES = 2**24  # of a WebSocket; frames wait until the client reads, answers to its pings do not
LOG_SECONDS = 10.0
FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class LimitedHttpProtocol(H11Protocol):
    """An HTTP connection that is closed if it makes the server wait.

    Three things have to happen within `seconds` each: the head of a request arrives, its body arrives, and the client
    reads what was sent to it. Connections that idle between requests are closed after uvicorn's own keep-alive
    timeout.

    When there are too many connections, the one that has waited longest for a request makes room, those first that
    never sent a complete one: clients that send their requests promptly get in during a flood of others.

    Args:
        seconds: see above.
        max_connections: connections to the server, HTTP and WebSocket together.
        **kwargs: arguments of `H11Protocol`.
    """

    def __init__(self, *, seconds: float, max_connections: int, **kwargs):
        super().__init__(**kwargs)
        self._seconds, self._max_connections = seconds, max_connections
        self._awaited: str | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._waiting_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._waiting_since = time.monotonic()
        self._set_deadline("head")
        if len(self.connections) > self._max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_deadline(None)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Called by the base class whenever bytes may make up a request or a part of one."""
        super().handle_events()
        if len(self.conn.trailing_data[0]) > MAX_PIPELINED_BYTES:
            self.transport.abort()
        self._set_deadline(self._missing())

    def on_response_complete(self) -> None:
        self._waiting_since = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_deadline(self._missing())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._set_deadline(self._missing())

    @property
    def is_idle(self) -> bool:
        """Whether no request is being received or answered."""
        return self.conn.their_state is h11.IDLE

    def _missing(self) -> str | None:
        """Return what the client has started and not completed."""
        if self not in self.connections:  # closed, or a WebSocket now
            return None
        if self.flow.write_paused:
            return "reading"
        if self.conn.their_state is h11.SEND_BODY:
            return "body"
        return "head" if self.is_idle and self.conn.trailing_data[0] else None

    def _set_deadline(self, part: str | None) -> None:
        """Set the deadline for what is missing; it does not move while the same thing is missing."""
        if part == self._awaited:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._awaited = part
        self._deadline = None if part is None else self.loop.call_later(self._seconds, self.transport.abort)

    def _make_room(self) -> None:
        others = [other for other in self.connections if isinstance(other, LimitedHttpProtocol) and other is not self]
        idle = [other for other in others if other.is_idle and not other.transport.is_closing()]
        if not idle:
            self.transport.write(FULL)
            self.transport.close()
            return
        min(idle, key=lambda other: (other.cycle is not None, other._waiting_since)).transport.abort()


class LimitedWebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket that is closed when its client sends pings without reading the answers, which pile up in memory."""

    def handle_ping(self) -> None:
        if self.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self.transport.abort()
        else:
            super().handle_ping()


class LogLimit(logging.Filter):
    """Passes at most one record per `LOG_SECONDS` from each place in the code, so that clients cannot fill a disk."""

    def __init__(self):
        super().__init__()
        self._next: dict[tuple[str, int], float] = {}
        self._left_out: dict[tuple[str, int], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place, now = (record.pathname, record.lineno), time.monotonic()
        if now < self._next.get(place, 0.0):
            self._left_out[place] = self._left_out.get(place, 0) + 1
            return False
        self._next[place] = now + LOG_SECONDS
        if left_out := self._left_out.pop(place, 0):
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like this were left out)", None
        return True


def limit_logs() -> None:
    """Limit what clients can make the process log."""
    limit = LogLimit()
    for name in ("asyncio", "uvicorn.error", __package__):
        logging.getLogger(name).addFilter(limit)


def raise_file_limit() -> None:
    """Let this process open as many files as the system allows it to; the usual default is far below that."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):  # macOS says "unlimited" and then refuses that
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connection_limit(wanted: int) -> int:
    """Return how many connections the server can hold, at most `wanted`: each takes one open file."""
    if resource is None:
        return wanted
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - RESERVED_FILES))
