"""Who may talk to the server, and how it says no."""

import hmac

from starlette.requests import HTTPConnection


class Refused(Exception):
    """The client gets this sentence, with an HTTP status, or 4000 plus that as the code that closes a WebSocket."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status, self.words = status, words


def check_access(connection: HTTPConnection, token: str | None) -> None:
    """Refuses pages of other sites, and whoever does not show the token, if there is one.

    A browser lets any page talk to a server on the loopback address; it tells where the page is from, though. The token
    comes as `Authorization: Bearer ...` or as `?token=...`.
    """
    origin = connection.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != connection.headers.get("host"):
        raise Refused(403, "a page of another site may not play here: open this server's own page.")
    if token is None:
        return
    shown = connection.headers.get("authorization", "").removeprefix("Bearer ").strip()
    shown = shown or connection.query_params.get("token", "")
    if not hmac.compare_digest(shown.encode(), token.encode()):
        raise Refused(401, "this server wants a token: send it as a bearer token, or as ?token=... in the address.")
