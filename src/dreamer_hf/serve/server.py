"""From options to a server that listens: the routes, and uvicorn with our limits."""

import math
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from ..engines.opening import open_world
from ..web import STATIC
from .auth import HttpError, RequestFilter, allowed_hosts, check_access, is_loopback
from .connections import (
    BACKLOG,
    LimitedHttpProtocol,
    LimitedWebSocketProtocol,
    connection_limit,
    limit_logs,
    raise_file_limit,
)
from .rest import RestApi
from .serve_options import ServeOptions
from .service import Service
from .websocket import PlayerConnection

# A WebSocket whose client does not answer pings is closed within the sum of the two.
PING_SECONDS, PONG_SECONDS = 4.0, 8.0
HARD_LIMIT_FACTOR = 16  # messages up to this many times the limit get an answer, longer ones close the connection
SHUTDOWN_SECONDS = 3
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; connect-src 'self' ws: wss:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the page's URL may contain the token
    "X-Content-Type-Options": "nosniff",
}


def run_server(options: ServeOptions) -> None:
    """Serve a world until the process is interrupted.

    Raises:
        ValueError: something in the options cannot be done.
    """
    raise_file_limit()
    with listen(options) as listener:
        world, starts, note = open_world(options.model, options)
        service = Service(world, starts, options)
        threads = service.choose_threads()
        if options.compile:
            service.compile()
        server = make_server(service)
        limit_logs()
        print(note, flush=True)
        if threads is not None and threads.available > 1:
            print(f"Using {threads}; --threads N sets another number.", flush=True)
        warn_of_strangers(options)
        print(f"Serving {options.model} at {server_url(listener, options)} (Ctrl-C to stop)", flush=True)
        server.run(sockets=[listener])


def warn_of_strangers(options: ServeOptions) -> None:
    """Print a warning if anybody can play who reaches the server."""
    if not is_loopback(options.host) and options.token is None:
        print(f"Anybody who can reach {options.host} can play: require a token with --token_file FILE.", flush=True)


def make_server(service: Service) -> uvicorn.Server:
    """Return a uvicorn server with the limits of a service's options."""
    return limited_server(make_app(service), service.options)


def limited_server(app: ASGIApp, options: ServeOptions) -> uvicorn.Server:
    """Return a uvicorn server for an application, with the limits of some options."""
    http = partial(
        LimitedHttpProtocol,
        seconds=options.request_seconds,
        max_connections=connection_limit(options.max_connections),
    )
    config = uvicorn.Config(
        app,
        http=http,
        ws=LimitedWebSocketProtocol,  # reads no further than the application does, so that no queue grows
        ws_max_size=HARD_LIMIT_FACTOR * options.max_message_bytes,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PONG_SECONDS,
        ws_per_message_deflate=False,  # images are compressed already
        backlog=BACKLOG,
        timeout_keep_alive=math.ceil(options.idle_seconds),  # a policy's connection lasts as long as its session
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        headers=list(SECURITY_HEADERS.items()),
        server_header=False,
        log_level="warning",
    )
    return uvicorn.Server(config)


def make_app(service: Service) -> Starlette:
    """Return the ASGI application of a service."""

    async def health(request: Request) -> Response:
        alive = service.engine.is_alive
        return JSONResponse({"status": "ok" if alive else "the engine has stopped"}, 200 if alive else 503)

    async def metrics(request: Request) -> Response:
        check_access(request, service.options.token)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def recording(request: Request) -> Response:
        # The session's secret name is the only key: a link cannot carry a header.
        found = service.recording_of(request.path_params["session"])
        if found is None or found.path.name != request.path_params["name"] or not found.path.exists():
            raise HttpError(404, "there is no such recording: it is deleted when its player leaves or records again.")
        return FileResponse(found.path, media_type="video/mp4", filename="dream.mp4")

    async def play(websocket: WebSocket) -> None:
        await PlayerConnection(websocket, service).run()

    rest = RestApi(service)
    routes = [
        WebSocketRoute("/play", play),
        Route("/recordings/{session}/{name}", recording),
        Route("/api/world", rest.world),
        Route("/api/sessions", rest.start, methods=["POST"]),
        Route("/api/sessions/{session}/step", rest.step, methods=["POST"]),
        Route("/api/sessions/{session}/reset", rest.reset, methods=["POST"]),
        Route("/api/sessions/{session}", rest.end, methods=["DELETE"]),
        Route("/health", health),
        Route("/metrics", metrics),
    ]
    return guarded_app(routes, service.options, service.run)


def guarded_app(
    routes: Sequence[BaseRoute], options: ServeOptions, run: Callable[[], AbstractAsyncContextManager]
) -> Starlette:
    """Return an application of the page and of some routes, which refuses what the options do not allow.

    Args:
        routes: what it answers besides the page.
        options: of the server.
        run: returns the context in which it runs.
    """

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    async def refuse(request: Request, error: HttpError) -> Response:
        return error.response()

    return Starlette(
        routes=[Route("/", page), *routes, Mount("/static", StaticFiles(directory=STATIC))],
        lifespan=lambda app: run(),
        middleware=[Middleware(RequestFilter, allowed_hosts(options))],
        exception_handlers={HttpError: refuse},
    )


def listen(options: ServeOptions) -> socket.socket:
    """Open the port before the world is loaded, which takes a while."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"cannot listen on {options.host}, port {options.port} ({reason}): choose others.") from error


def server_url(listener: socket.socket, options: ServeOptions) -> str:
    """Return the address of a server for people."""
    host = f"[{options.host}]" if ":" in options.host else options.host
    token = "" if options.token is None else "?token=..."
    return f"http://{host}:{listener.getsockname()[1]}/{token}"
