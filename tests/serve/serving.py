"""A real server in a thread of this process, and ways to talk to it."""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

import torch
from websockets.sync.client import connect

from dreamer_hf.serve.options import ServeOptions
from dreamer_hf.serve.running import make_server
from dreamer_hf.serve.service import Service

PATIENCE = 60  # seconds; nothing here takes one, but the machine may be busy


def wait_until(condition, what="this"):
    """Waits for a condition and returns its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return value


@dataclass
class Served:
    """A running server and ways to talk to it."""

    service: Service
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sessions(self) -> int:
        return len(self.service.lobby._sessions)

    def request(self, method, path, body=None, **headers):
        """Status and text of an answer."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def ask(self, method, path, body=None, **headers):
        """Status and JSON of an answer."""
        status, text = self.request(method, path, body, **headers)
        return status, json.loads(text or b"{}")

    def play(self, query="", **options):
        """A WebSocket as a browser opens it."""
        address = f"ws://127.0.0.1:{self.port}/play{query}"
        return connect(address, open_timeout=PATIENCE, close_timeout=1, max_size=None, **options)


@contextlib.contextmanager
def serving(world, starts, send_buffer=None, **options):
    """A server, from its start to its end. send_buffer: bytes that the system keeps for a slow reader."""
    service = Service(world, starts, ServeOptions(model="tiny", **options))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # connections inherit it
        server = make_server(service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started, "the server")
            yield Served(service, listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


def read_frame(data):
    """Header and picture of a frame."""
    end = 4 + int.from_bytes(data[:4], "little")
    return json.loads(data[4:end]), data[end:]


def next_frame(socket, until=lambda header: True):
    """The next frame that meets a condition: header and picture."""

    def look():
        data = socket.recv(timeout=PATIENCE)
        if isinstance(data, bytes):
            header, picture = read_frame(data)
            return (header, picture) if until(header) else None

    return wait_until(look, "a frame")


def next_message(socket, kind):
    """The next JSON message of a kind."""

    def look():
        data = socket.recv(timeout=PATIENCE)
        message = json.loads(data) if isinstance(data, str) else {}
        return message if message.get("type") == kind else None

    return wait_until(look, f"a message {kind!r}")


def say(socket, **message):
    socket.send(json.dumps(message))


def alone(world, starts, start, seed):
    """The rollout that a user would start."""
    return world.start_rollout(starts[start], generator=torch.Generator().manual_seed(seed))
