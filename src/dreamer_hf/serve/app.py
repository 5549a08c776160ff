"""The routes of a served world."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from .guard import Refused, check_access
from .rest import Rest
from .service import Service
from .websocket import PlayerConnection

STATIC = Path(__file__).parent / "static"


def make_app(service: Service) -> Starlette:
    """The ASGI application of a service."""

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    async def health(request: Request) -> Response:
        alive = service.engine.is_alive()
        return JSONResponse({"status": "ok" if alive else "the engine has stopped"}, 200 if alive else 503)

    async def metrics(request: Request) -> Response:
        check_access(request, service.options.token)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def recording(request: Request) -> Response:
        # The name of the session is secret, so that it is the only key needed: a link can carry no header.
        found = service.lobby.recording_of(request.path_params["session"])
        if found is None or found.path.name != request.path_params["name"] or not found.path.exists():
            raise Refused(404, "there is no such recording: it is gone when its player leaves or records again.")
        return FileResponse(found.path, media_type="video/mp4", filename="dream.mp4")

    async def play(websocket: WebSocket) -> None:
        await PlayerConnection(websocket, service).run()

    async def refuse(request: Request, refusal: Refused) -> Response:
        return JSONResponse({"error": refusal.words}, status_code=refusal.status)

    rest = Rest(service)
    routes = [
        Route("/", page),
        WebSocketRoute("/play", play),
        Route("/recordings/{session}/{name}", recording),
        Route("/api/world", rest.world),
        Route("/api/sessions", rest.begin, methods=["POST"]),
        Route("/api/sessions/{session}/step", rest.step, methods=["POST"]),
        Route("/api/sessions/{session}/reset", rest.reset, methods=["POST"]),
        Route("/api/sessions/{session}", rest.end, methods=["DELETE"]),
        Route("/health", health),
        Route("/metrics", metrics),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(routes=routes, lifespan=lambda app: service.run(), exception_handlers={Refused: refuse})
