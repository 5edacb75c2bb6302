"""Limits request bodies, and answers HEAD, as ASGI middleware."""

import anyio
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.handlers import response
from service.http.headers import announced_bytes
from service.http.problems import Problem

LINGER_SECONDS = 10  # how long an unwanted body is read after the reply
SHORT_BYTES = 2**18  # a body that has probably arrived already
SHORT_SECONDS = 0.1  # how long the reply waits for such a body


class BodyLimit:
    """Replies 413 problem+json to bodies over ``max_bytes``; never holds more than a chunk.

    A reply may be ready before the body has arrived: 413, but also 401 or 429. Closing the
    connection then would reset it, and the client could lose the reply. So the reply is sent at
    once, the rest of the body is read and dropped for a while, and then the connection is closed.
    A short body is dropped before the reply, so that the client can reuse the connection.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(scope, receive, send, self.max_bytes)
        if body.announced > self.max_bytes:
            reply = response(Request(scope), _too_large(self.max_bytes))
            await reply(scope, body.receive, body.send)
        else:
            await self.app(scope, body.receive, body.send)


class HeadAsGet:
    """Treats HEAD as GET (RFC 9110, 9.3.2); the server omits the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self.app({**scope, "method": "GET"} if head else scope, receive, send)


class _Body:
    """The body of one request, and the reply that may be sent before its end."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_bytes: int) -> None:
        headers = Headers(scope=scope)
        self.announced = announced_bytes(headers) or 0
        awaited = self.announced > 0 or "transfer-encoding" in headers
        self._arrived = not awaited
        # A client that waits for "100 Continue" sends no body after the reply.
        self.complete = self._arrived or "expect" in headers
        self.received = 0
        self._replying = False
        self.max_bytes = max_bytes
        self._receive, self._send = receive, send

    async def receive(self) -> Message:
        message = await self._receive()
        self.received += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.complete = self._arrived = True
        if self.received > self.max_bytes:
            raise _too_large(self.max_bytes)
        return message

    async def send(self, message: Message) -> None:
        if not self._replying and not self.complete and 0 < self.announced <= SHORT_BYTES:
            await self._drop(SHORT_SECONDS)
        self._replying = True
        if self.complete and (self._arrived or message["type"] != "http.response.start"):
            await self._send(message)
        elif message["type"] == "http.response.start":
            headers = [*message.get("headers", []), (b"connection", b"close")]
            await self._send({**message, "headers": headers})
        elif message.get("more_body", False):
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            await self._drop(LINGER_SECONDS)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drop(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            while not self.complete and self.received <= 2 * self.max_bytes:
                message = await self._receive()
                self.received += len(message.get("body", b""))
                more = message["type"] == "http.request" and message.get("more_body", False)
                self.complete = self._arrived = not more


def _too_large(max_bytes: int) -> Problem:
    return Problem(
        413, "body-too-large", f"the request body is over the limit of {max_bytes} bytes"
    )
