"""An engine on a node of a cluster: a whole server, which only the proxy may talk to."""

import logging
import threading
from dataclasses import replace
from typing import NamedTuple

import ray

from ..data.terminal_logs import log_to_terminal
from ..engines.opening import open_world
from ..serve.connections import limit_logs, raise_file_limit
from ..serve.serve_options import ServeOptions
from ..serve.server import limited_server, listen, make_app
from ..serve.service import Service
from ..threads import wait_without_spinning
from .worker import enter_folder


class EngineAddress(NamedTuple):
    """Where the proxy finds an engine.

    Attributes:
        host, port: of its server.
        node: Ray's number of its node.
        description: what clients need to know about the world.
        note: one line for people: what computes the dreams, and why.
    """

    host: str
    port: int
    node: str
    description: dict
    note: str


class EngineStatus(NamedTuple):
    """How an engine is.

    Attributes:
        is_alive: whether it steps dreams.
        sessions: number of players and policies.
        metrics: in Prometheus' text format.
    """

    is_alive: bool
    sessions: int
    metrics: str


class EngineReplica:
    """An actor that runs one server.

    The proxy applies the limits to clients and sends the secret with every request, so the server itself accepts one
    connection for each session and a few more.

    Args:
        name: beginning of the names of its sessions.
        options: of `dreamer serve`.
        secret: token that the server requires.
        folder: the working folder of the proxy.
    """

    def __init__(self, name: str, options: ServeOptions, secret: str, folder: str):
        wait_without_spinning()
        enter_folder(folder)
        log_to_terminal(logging.WARNING)
        raise_file_limit()
        host = ray.util.get_node_ip_address()
        private = {"host": host, "port": 0, "token": secret, "token_file": None, "allowed_host": (), "ray": None}
        self._options = replace(options, **private, max_connections=2 * options.max_sessions + 64)
        self._name, self._service = name, None

    def start(self) -> EngineAddress:
        """Open the world and listen.

        Raises:
            ValueError, OSError: as `run_server`.
        """
        options = self._options
        listener = listen(options)
        world, starts, note = open_world(options.model, options)
        self._service = Service(world, starts, options, f"{self._name}.")
        self._service.choose_threads()
        if options.compile:
            self._service.compile()
        limit_logs()
        server = limited_server(make_app(self._service), options)
        threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
        node = ray.get_runtime_context().get_node_id()
        return EngineAddress(options.host, listener.getsockname()[1], node, self._service.description, note)

    def status(self) -> EngineStatus:
        """Return how the engine is; it must have started."""
        service = self._service
        return EngineStatus(service.engine.is_alive, len(service.sessions), service.metrics.text().decode())


__all__ = ["EngineAddress", "EngineReplica", "EngineStatus"]
