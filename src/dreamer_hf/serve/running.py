"""From options to a server that listens."""

import math
import socket

import uvicorn

from ..loading import load_world_and_starts
from .app import make_app
from .options import ServeOptions
from .service import Service

# A WebSocket that answers no ping any more has gone: its place is free within the sum of the two.
PING_SECONDS, PONG_SECONDS = 4.0, 8.0
HARD_LIMIT_FACTOR = 16  # messages up to this many times the limit are answered, longer ones close the connection
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(options: ServeOptions) -> None:
    """Serves a world until the process is told to end.

    Raises:
        ValueError: for anything in the options that cannot be done, in one sentence.
    """
    options.check()
    listener = _listen(options)
    with listener:
        world, starts = load_world_and_starts(options)
        service = Service(world, starts, options)
        if options.host not in LOOPBACK and options.token is None:
            print(f"Whoever reaches {options.host} can play: add --token SECRET to ask for one.", flush=True)
        print(f"Serving {options.model} at {_address(listener, options)} (Ctrl-C ends it)", flush=True)
        make_server(service).run(sockets=[listener])


def make_server(service: Service) -> uvicorn.Server:
    """A uvicorn server with the limits of a service."""
    config = uvicorn.Config(
        make_app(service),
        log_level="warning",
        ws="websockets-sansio",  # reads no further than the application does, so that no queue grows
        ws_max_size=HARD_LIMIT_FACTOR * service.options.max_message_bytes,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PONG_SECONDS,
        ws_per_message_deflate=False,  # pictures are compressed already
        timeout_keep_alive=math.ceil(
            service.options.idle_seconds
        ),  # a policy's connection lasts as long as its session
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)


def _listen(options: ServeOptions) -> socket.socket:
    """Takes the port first: loading a world takes long enough."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"cannot listen on {options.host}, port {options.port} ({reason}): choose others.") from error


def _address(listener: socket.socket, options: ServeOptions) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    token = "" if options.token is None else "?token=..."
    return f"http://{host}:{listener.getsockname()[1]}/{token}"
