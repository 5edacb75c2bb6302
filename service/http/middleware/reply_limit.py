"""Limits the bytes of large replies that wait for their clients, as ASGI middleware."""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Unavailable
from service.http.handlers import response
from service.http.problems import Problem, problem_of

LARGE_BYTES = 2**20
MOST_BYTES = 256 * 2**20  # of all large replies that are being sent; one may have more
PART_BYTES = 2**18
BUSY = "too many clients have not read their replies yet; try again"


class ReplyLimit:
    """Sends large replies in parts, so that the server holds no second copy of them.

    Replies 503 instead if those that are being sent have MOST_BYTES already.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._sending = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message | None = None

        async def send_limited(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            body = message.get("body", b"")
            if len(body) > LARGE_BYTES and start is not None:
                await self._send_large(scope, receive, send, [start, message])
                start = None
                return
            if start is not None:
                await send(start)
                start = None
            await send(message)

        await self.app(scope, receive, send_limited if scope["type"] == "http" else send)

    async def _send_large(
        self, scope: Scope, receive: Receive, send: Send, messages: list[Message]
    ) -> None:
        start, message = messages
        body = memoryview(message["body"])
        if self._sending and self._sending + len(body) > MOST_BYTES:
            problem = problem_of(Unavailable(BUSY)) or Problem(503, "unavailable", BUSY)
            await response(Request(scope), problem)(scope, receive, send)
            return
        self._sending += len(body)
        try:
            await send(start)
            for place in range(0, len(body), PART_BYTES):
                part = bytes(body[place : place + PART_BYTES])
                await send({**message, "body": part, "more_body": True})
            await send({**message, "body": b""})
        finally:
            self._sending -= len(body)
