"""Limits the bytes of large replies that wait for their clients, as ASGI middleware."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Unavailable
from service.http.handlers import response
from service.http.middleware.connection import CONNECTION
from service.http.problems import Problem, problem_of

LARGE_BYTES = 2**20
MOST_BYTES = 256 * 2**20  # of all large replies that are being sent; one may have more
PART_BYTES = 2**18
# A client that reads more slowly loses its connection to another large reply, after some time.
REPLACED_SECONDS, REPLACED_BYTES_A_SECOND = 5.0, 64 * 2**10
BUSY = "too many clients have not read their replies yet; try again"


@dataclass(eq=False)
class _Sending:
    """A large reply that is being sent. ``abort``: ends its connection."""

    size: int
    abort: Callable[[], None]
    sent: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Bytes a second until now."""
        return self.sent / max(time.monotonic() - self.began, 1e-9)

    @property
    def replaceable(self) -> bool:
        slow = self.rate < REPLACED_BYTES_A_SECOND
        return slow and time.monotonic() - self.began > REPLACED_SECONDS


class ReplyLimit:
    """Sends large replies in parts, so that the server holds no second copy of them.

    If those that are being sent have MOST_BYTES already, a new one ends those that are read too
    slowly, the slowest first; without such ones the reply is 503 instead.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._sending: list[_Sending] = []

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
        if not self._make_room(len(body)):
            problem = problem_of(Unavailable(BUSY)) or Problem(503, "unavailable", BUSY)
            await response(Request(scope), problem)(scope, receive, send)
            return
        sending = _Sending(len(body), scope["extensions"][CONNECTION]["abort"])
        self._sending.append(sending)
        try:
            await send(start)
            for place in range(0, len(body), PART_BYTES):
                part = bytes(body[place : place + PART_BYTES])
                await send({**message, "body": part, "more_body": True})
                sending.sent += len(part)
            await send({**message, "body": b""})
        finally:
            if sending in self._sending:
                self._sending.remove(sending)

    def _make_room(self, size: int) -> bool:
        """Returns whether there is room for a reply; ends slow ones if there is not."""
        slow = sorted(
            (each for each in self._sending if each.replaceable), key=lambda each: each.rate
        )
        while self._sending and sum(each.size for each in self._sending) + size > MOST_BYTES:
            if not slow:
                return False
            slowest = slow.pop(0)
            slowest.abort()
            self._sending.remove(slowest)
        return True
