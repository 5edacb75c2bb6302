"""The limit on request bodies, announced or chunked, as ASGI middleware."""

import anyio
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem, response

DRAIN_SECONDS = 10  # how long a client that sends too much is read before it is cut off


class BodyLimit:
    """413 problem+json for bodies over ``max_bytes``; memory never holds more than a chunk.

    A client that does not wait for "100 Continue" is read on for a while before the
    reply: closing on it at once would reset the connection and lose the reply.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.max_bytes:
            if "expect" not in headers:
                await self._drain(receive)
            reply = response(Request(scope), self._too_large())
            reply.headers["connection"] = "close"
            await reply(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                await self._drain(receive)
                raise self._too_large()
            return message

        await self.app(scope, counted, send)

    async def _drain(self, receive: Receive) -> None:
        left = 2 * self.max_bytes
        with anyio.move_on_after(DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return

    def _too_large(self) -> Problem:
        return Problem(
            413, "body-too-large", f"the request body is over the limit of {self.max_bytes} bytes"
        )
