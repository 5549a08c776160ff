"""The REST API of policies: start a session, step it with an action and wait for the frame, reset it, end it."""

import logging

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from .auth import HttpError, check_access
from .protocol import frame_as_json, read_action, read_json, read_start_request
from .service import Service
from .sessions import Policy, SessionError, StartRequest

log = logging.getLogger(__package__)


class RestApi:
    """The handlers. They raise `HttpError` for what they refuse."""

    def __init__(self, service: Service):
        self.service = service

    async def world(self, request: Request) -> Response:
        """GET: describe the world."""
        check_access(request, self.service.options.token)
        return JSONResponse(self.service.description)

    async def start(self, request: Request) -> Response:
        """POST {"start"?, "seed"?}: return a new session and its start frame."""
        policy = Policy(await self._read(request, self._start_request))
        self.service.enter(policy)
        answer = {"session": policy.id, **await self._answer(policy)}
        if await request.is_disconnected():  # nobody knows the name of this session, so nobody can end it
            self.service.leave(policy)
        return JSONResponse(answer, status_code=201)

    async def step(self, request: Request) -> Response:
        """POST {"action": [...]}: return the frame that it leads to."""
        action = await self._read(request, lambda value: read_action(value, self.service.dreams.space))
        policy = self._policy(request)
        policy.request(action=action)
        self.service.engine.wake()
        return JSONResponse(await self._answer(policy))

    async def reset(self, request: Request) -> Response:
        """POST {"start"?, "seed"?}: return the start frame of another dream."""
        start_request = await self._read(request, self._start_request)
        policy = self._policy(request)
        policy.request(start_request=start_request)
        self.service.engine.wake()
        return JSONResponse(await self._answer(policy))

    async def end(self, request: Request) -> Response:
        """DELETE: free the place of a session."""
        check_access(request, self.service.options.token)
        policy = self._policy(request)
        self.service.leave(policy)
        policy.fail("this session was ended by another request.")
        policy.notify()  # a request that may still wait for a frame
        return Response(status_code=204)

    async def _read(self, request: Request, read):
        """Return what `read` makes of the request's JSON; a `ValueError` becomes a refusal."""
        check_access(request, self.service.options.token)
        try:
            return read(read_json(await read_body(request, self.service.options.max_message_bytes) or b"{}"))
        except ValueError as error:
            raise HttpError(400, str(error)) from error

    def _start_request(self, value: dict) -> StartRequest:
        return read_start_request(value, len(self.service.dreams.starts))

    def _policy(self, request: Request) -> Policy:
        """Return the session of the URL, if it can take a request."""
        policy = self.service.policy(request.path_params["session"])
        if policy is None:
            idle_seconds = self.service.options.idle_seconds
            raise HttpError(
                404, f"there is no such session (sessions end after {idle_seconds:g} idle seconds): start one."
            )
        if policy.is_waiting and request.method != "DELETE":
            raise HttpError(409, "this session is still at its last step: wait for the answer.")
        return policy

    async def _answer(self, policy: Policy) -> dict:
        try:
            return frame_as_json(await policy.answer())
        except SessionError as error:
            self.service.leave(policy)
            raise HttpError(500, str(error)) from error


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body of a request.

    Raises:
        HttpError: it is longer than `limit` bytes, or does not arrive.
    """
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise HttpError(413, f"the body is too long: send {limit} bytes at most.")
    except ClientDisconnect as error:
        log.warning("A client left while it was sending a request.")
        raise HttpError(400, "the body is incomplete.") from error
    return body
