"""The proxy in front of the engines: one address for all clients, whose sessions stay on their engines."""

import contextlib
import logging
from collections.abc import AsyncIterator

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from ..serve.auth import HttpError, check_access, is_loopback
from ..serve.protocol import read_json
from ..serve.rest import read_body
from ..serve.serve_options import ServeOptions
from ..serve.server import guarded_app
from .fleet import SERVING, STARTING, Fleet, FleetEngine
from .player_relay import PlayerRelay
from .proxy_metrics import ProxyMetrics
from .summed_metrics import add_metrics, write_metrics

log = logging.getLogger(__package__)
MAX_ENGINES = 10_000
ENGINE_SECONDS = 60.0
"""How long an engine may take to answer a policy; a step takes far less."""
KEPT_HEADERS = ("content-type", "content-length", "content-disposition")
ENGINE_GONE = "the engine of this session is gone: start another session."


class Proxy:
    """The handlers. They raise `HttpError` for what they refuse.

    Args:
        fleet: the engines.
        options: of the server.
    """

    def __init__(self, fleet: Fleet, options: ServeOptions):
        self.fleet, self.options = fleet, options
        self.proxy_metrics = ProxyMetrics()
        self._client: httpx.AsyncClient | None = None

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run the engines and the connections to them while the block runs."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        headers = {"Authorization": f"Bearer {self.fleet.secret}"}
        self._client = httpx.AsyncClient(limits=limits, headers=headers, timeout=ENGINE_SECONDS, trust_env=False)
        async with self._client, self.fleet.run():
            yield

    async def play(self, websocket: WebSocket) -> None:
        """WebSocket of a player."""
        await PlayerRelay(websocket, self.fleet, self.options, self.proxy_metrics).run()

    async def world(self, request: Request) -> Response:
        """GET: describe the world."""
        check_access(request, self.options.token)
        return JSONResponse(self.fleet.emptiest().address.description)

    async def start(self, request: Request) -> Response:
        """POST: a new session, on the emptiest engine."""
        body = await self._body(request)
        engine = self.fleet.emptiest()
        engine.sessions += 1
        try:
            return await self._ask(engine, request, body)
        except httpx.TransportError as error:
            self.fleet.suspect(engine)
            raise HttpError(503, "an engine did not answer: try again.") from error

    async def session(self, request: Request) -> Response:
        """POST or DELETE of a session: its engine answers."""
        body = await self._body(request)
        engine = self.fleet.find(request.path_params["session"])
        if engine is None:
            raise HttpError(404, ENGINE_GONE)
        try:
            return await self._ask(engine, request, body)
        except httpx.TransportError as error:
            self.fleet.suspect(engine)
            raise HttpError(404, ENGINE_GONE) from error

    async def recording(self, request: Request) -> Response:
        """GET: a recording, whose secret name is the only key."""
        engine = self.fleet.find(request.path_params["session"])
        if engine is None:
            raise HttpError(404, "there is no such recording: its engine is gone.")
        sent = self._client.build_request("GET", f"http://{engine.url}{request.url.path}")
        try:
            answer = await self._client.send(sent, stream=True)
        except httpx.TransportError as error:
            raise HttpError(404, "there is no such recording: its engine is gone.") from error
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, _kept(answer), background=BackgroundTask(answer.aclose)
        )

    async def health(self, request: Request) -> Response:
        """GET: 200 while any engine serves."""
        serves = any(engine.state == SERVING for engine in self.fleet.engines)
        starts = any(engine.state == STARTING for engine in self.fleet.engines)
        status = "ok" if serves else "the engines are starting" if starts else "no engine serves"
        return JSONResponse({"status": status}, 200 if serves else 503)

    async def metrics(self, request: Request) -> Response:
        """GET: the sum of all engines, and the proxy's own."""
        check_access(request, self.options.token)
        await self.fleet.refresh()
        own = self.proxy_metrics.sums([engine.state for engine in self.fleet.engines], self.fleet.lost)
        text = write_metrics(add_metrics([self.fleet.metrics(), own]))
        return Response(text, media_type="text/plain; version=0.0.4")

    async def engines(self, request: Request) -> Response:
        """GET: the engines. POST {"engines": 4}: how many there should be."""
        self._check_operator(request)
        if request.method == "POST":
            try:
                number = read_json(await self._body(request)).get("engines")
            except ValueError as error:
                raise HttpError(400, str(error)) from error
            if type(number) is not int or not 0 <= number <= MAX_ENGINES:
                raise HttpError(400, f"engines must be an integer from 0 to {MAX_ENGINES}.")
            self.fleet.resize(number)
        listed = [engine.as_json() for engine in self.fleet.engines]
        return JSONResponse({"wanted": self.fleet.wanted, "failure": self.fleet.failure, "engines": listed})

    async def drain(self, request: Request) -> Response:
        """DELETE: give an engine no more sessions, and stop it when its last one ends."""
        self._check_operator(request)
        if not self.fleet.drain(request.path_params["engine"]):
            raise HttpError(404, "there is no such engine: GET /engines lists them.")
        return Response(status_code=204)

    def _check_operator(self, request: Request) -> None:
        check_access(request, self.options.token)
        if self.options.token is None and not is_loopback(self.options.host):
            raise HttpError(403, "engines are managed with a token only: start the server with --token_file FILE.")

    async def _body(self, request: Request) -> bytes:
        check_access(request, self.options.token)
        return await read_body(request, self.options.max_message_bytes)

    async def _ask(self, engine: FleetEngine, request: Request, body: bytes) -> Response:
        answer = await self._client.request(request.method, f"http://{engine.url}{request.url.path}", content=body)
        return Response(answer.content, answer.status_code, _kept(answer))


def _kept(answer: httpx.Response) -> dict[str, str]:
    return {name: answer.headers[name] for name in KEPT_HEADERS if name in answer.headers}


def make_proxy_app(proxy: Proxy) -> Starlette:
    """Return the ASGI application of a proxy: the routes of a server, and those of its engines."""
    routes = [
        WebSocketRoute("/play", proxy.play),
        Route("/recordings/{session}/{name}", proxy.recording),
        Route("/api/world", proxy.world),
        Route("/api/sessions", proxy.start, methods=["POST"]),
        Route("/api/sessions/{session}/step", proxy.session, methods=["POST"]),
        Route("/api/sessions/{session}/reset", proxy.session, methods=["POST"]),
        Route("/api/sessions/{session}", proxy.session, methods=["DELETE"]),
        Route("/engines", proxy.engines, methods=["GET", "POST"]),
        Route("/engines/{engine}", proxy.drain, methods=["DELETE"]),
        Route("/health", proxy.health),
        Route("/metrics", proxy.metrics),
    ]
    return guarded_app(routes, proxy.options, proxy.run)


__all__ = ["ENGINE_GONE", "Proxy", "make_proxy_app"]
