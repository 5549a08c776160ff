"""Who may talk to the server, and how a client is refused."""

import hmac
from ipaddress import ip_address

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from .serve_options import ServeOptions

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
ORIGIN_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class HttpError(Exception):
    """A refusal: an HTTP status (plus 4000 it is the code that closes a WebSocket) and one sentence for the client."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message

    def response(self) -> JSONResponse:
        """Return the refusal as a response; it closes the connection, on which a body may still be arriving."""
        return JSONResponse({"error": self.message}, self.status, headers={"Connection": "close"})


def is_loopback(host: str) -> bool:
    """Return whether an address reaches this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_hosts(options: ServeOptions) -> frozenset[str] | None:
    """Return the names that a request's Host header may carry; None if any name will do.

    A page of a foreign site can have its name resolve to this machine ("DNS rebinding") and then counts as our own
    page to the browser, in every respect but this header. On the loopback interface, where nothing else keeps
    strangers out, only the machine's own names are accepted.
    """
    protected_by_host = is_loopback(options.host) and options.token is None
    if not options.allowed_host and not protected_by_host:
        return None
    return LOOPBACK_NAMES | {options.host.lower(), *(host.lower() for host in options.allowed_host)}


def check_access(connection: HTTPConnection, token: str | None) -> None:
    """Refuse requests from the pages of other sites and, if the server has a token, requests without it.

    A browser lets any page send requests to any server, but names the page's site as the Origin. The token comes as
    `Authorization: Bearer ...` or as `?token=...`.
    """
    origin, host = connection.headers.get("origin"), connection.headers.get("host", "")
    if origin is not None and origin.lower() != f"{ORIGIN_SCHEMES[connection.scope['scheme']]}://{host.lower()}":
        raise HttpError(403, "a page of another site may not play here: open this server's own page.")
    if token is None:
        return
    shown = connection.headers.get("authorization", "").removeprefix("Bearer ").strip()
    shown = shown or connection.query_params.get("token", "")
    if not hmac.compare_digest(shown.encode(), token.encode()):
        raise HttpError(401, "this server requires a token: send it as a bearer token, or as ?token=... in the URL.")


class RequestFilter:
    """ASGI middleware that refuses foreign Host headers, and requests with two lengths.

    Args:
        app: answers the requests that pass.
        hosts: names that the Host header may carry; None if any name will do.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None):
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self.app
        if scope["type"] in ("http", "websocket"):
            try:
                self._check(HTTPConnection(scope))
            except HttpError as error:
                answer = error.response() if scope["type"] == "http" else WebSocketClose()
        await answer(scope, receive, send)

    def _check(self, request: HTTPConnection) -> None:
        host = request.headers.get("host", "")
        if self.hosts is not None and _host_name(host) not in self.hosts:
            raise HttpError(
                403, f"this server does not answer to the name {host!r:.80}: start it with --allowed_host."
            )
        # A proxy in front of us may read one length where we read the other, and then take part of this request's body
        # for the next request.
        if "content-length" in request.headers and "transfer-encoding" in request.headers:
            raise HttpError(400, "send Content-Length or Transfer-Encoding, not both.")


def _host_name(host: str) -> str:
    """Return the name or address in a Host header, without port and brackets."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower()
