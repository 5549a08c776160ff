"""A real server in a thread of this process, and clients for it."""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from websockets.sync.client import connect

from dreamer_hf.seeded_noise import SeededNoise
from dreamer_hf.serve.serve_options import ServeOptions
from dreamer_hf.serve.server import make_server
from dreamer_hf.serve.service import Service
from waiting import TIMEOUT, wait_until


@dataclass
class Served:
    """A running server and how to reach it."""

    service: Service
    port: int
    connections: set

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sessions(self) -> int:
        return len(self.service.sessions)

    def request(self, method, path, body=None, **headers):
        """Return the status and the body of an answer."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def ask(self, method, path, body=None, **headers):
        """Return the status and the JSON of an answer."""
        status, text = self.request(method, path, body, **headers)
        return status, json.loads(text or b"{}")

    def play(self, query="", **options):
        """Open a WebSocket as a browser does."""
        address = f"ws://127.0.0.1:{self.port}/play{query}"
        return connect(address, open_timeout=TIMEOUT, close_timeout=1, max_size=None, **options)


@contextlib.contextmanager
def serving(world, starts, send_buffer=None, **options):
    """Run a server. send_buffer: bytes that the system keeps for a slow reader."""
    service = Service(world, starts, ServeOptions(**{"model": "tiny", **options}))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # connections inherit it
        server = make_server(service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started, "the server")
            yield Served(service, listener.getsockname()[1], server.server_state.connections)
        finally:
            server.should_exit = True
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def read_frame(data):
    """Return the header and the image file of a frame."""
    end = 4 + int.from_bytes(data[:4], "little")
    return json.loads(data[4:end]), data[end:]


def next_frame(socket, until=lambda header: True):
    """Return the header and the image file of the next frame that meets a condition."""

    def look():
        data = socket.recv(timeout=TIMEOUT)
        if isinstance(data, bytes):
            header, image = read_frame(data)
            return (header, image) if until(header) else None

    return wait_until(look, "a frame")


def next_message(socket, kind):
    """Return the next JSON message of a type."""

    def look():
        data = socket.recv(timeout=TIMEOUT)
        message = json.loads(data) if isinstance(data, str) else {}
        return message if message.get("type") == kind else None

    return wait_until(look, f"a message {kind!r}")


def send(socket, **message):
    socket.send(json.dumps(message))


def plain_rollout(world, starts, start, seed):
    """Return the rollout that a user would start."""
    return world.start_rollout(starts[start], generator=SeededNoise(seed))


def connect_raw(served, text=b""):
    """Open a TCP connection and send bytes that may not be a whole request."""
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=TIMEOUT)
    connection.sendall(text)
    return connection


def is_closed_by_server(connection):
    """Return whether the server closes a connection within a second."""
    connection.settimeout(1)
    try:
        while connection.recv(2**16):
            pass
        return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True


class MeasuringPlayer:
    """A player who plays in a thread and notes when each frame arrived."""

    def __init__(self, served):
        self.steps, self.times, self.failure = [], [], None
        self._served, self._stopping = served, False
        self._thread = threading.Thread(target=self._play)

    def __enter__(self):
        self._thread.start()
        wait_until(lambda: self.steps or self.failure, "the first frame")
        return self

    def __exit__(self, *exception):
        self._stopping = True
        self._thread.join(TIMEOUT)

    def _play(self):
        try:
            with self._served.play() as connection:
                while not self._stopping:
                    header, _ = next_frame(connection)
                    self.steps.append(header["step"])
                    self.times.append(time.monotonic())
        except Exception as error:
            self.failure = error

    def wait_for_frames(self, count):
        goal = len(self.steps) + count
        wait_until(lambda: len(self.steps) >= goal or self.failure, "frames")

    def check(self):
        """The dream has gone on in order. A busy machine skips frames, as it does for slow readers."""
        assert self.failure is None, self.failure
        assert self.steps == sorted(set(self.steps))
