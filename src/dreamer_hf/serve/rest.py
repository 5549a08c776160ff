"""The REST route of policies: begin a session, step it with an action and wait for the frame, reset, end it."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .guard import Refused, check_access
from .messages import read_action, read_beginning, read_json
from .pictures import as_json
from .service import Service
from .sessions import Policy, SessionFailed


class Rest:
    """The handlers; each refuses with a status and a sentence."""

    def __init__(self, service: Service):
        self.service = service

    async def world(self, request: Request) -> Response:
        """GET: what the world is."""
        check_access(request, self.service.options.token)
        return JSONResponse(self.service.description)

    async def begin(self, request: Request) -> Response:
        """POST {"start"?, "seed"?}: a new session and its first frame."""
        beginning = await self._read(request, self._beginning)
        policy = Policy(beginning)
        self.service.lobby.enter(policy)
        return JSONResponse({"session": policy.id, **await self._answer(policy)}, status_code=201)

    async def step(self, request: Request) -> Response:
        """POST {"action": [...]}: the frame that it leads to."""
        action = await self._read(request, lambda value: read_action(value, self.service.dreams.space))
        policy = self._policy(request)
        policy.ask(action=action)
        self.service.engine.wake()
        return JSONResponse(await self._answer(policy))

    async def reset(self, request: Request) -> Response:
        """POST {"start"?, "seed"?}: the first frame of another dream."""
        beginning = await self._read(request, self._beginning)
        policy = self._policy(request)
        policy.ask(beginning=beginning)
        self.service.engine.wake()
        return JSONResponse(await self._answer(policy))

    async def end(self, request: Request) -> Response:
        """DELETE: frees the session's place."""
        check_access(request, self.service.options.token)
        policy = self._policy(request)
        self.service.lobby.leave(policy)
        policy.failed("this session was ended by another request.")
        policy.announce()  # to a request that still waits for a frame
        return Response(status_code=204)

    async def _read(self, request: Request, read):
        """What `read` makes of the request's JSON; its errors become refusals."""
        check_access(request, self.service.options.token)
        try:
            return read(read_json(await self._body(request) or b"{}"))
        except ValueError as error:
            raise Refused(400, str(error)) from error

    async def _body(self, request: Request) -> bytes:
        limit, body = self.service.options.max_message_bytes, b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise Refused(413, f"the body is too long: send {limit} bytes at most.")
        return body

    def _beginning(self, value: dict):
        return read_beginning(value, len(self.service.dreams.starts))

    def _policy(self, request: Request) -> Policy:
        """The session of the address, ready to be asked."""
        policy = self.service.lobby.policy(request.path_params["session"])
        if policy is None:
            idle = self.service.options.idle_seconds
            raise Refused(
                404, f"there is no such session (any more: they end after {idle:g} idle seconds): begin one."
            )
        if policy.busy and request.method != "DELETE":
            raise Refused(409, "this session is still at its last step: wait for the answer.")
        return policy

    async def _answer(self, policy: Policy) -> dict:
        try:
            return as_json(await policy.answer())
        except SessionFailed as error:
            self.service.lobby.leave(policy)
            raise Refused(500, str(error)) from error
