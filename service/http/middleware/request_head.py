"""Limits the head of each request on a connection: its bytes, its headers and its time.

The server reads the head, which is the request line and the headers, before it calls the
application, so no check of a key or of a body comes before it.
"""

import asyncio
import json
import logging
from http import HTTPStatus

from service.http.handlers import HEADERS, MEDIA_TYPE
from service.http.middleware.connection import BoundedProtocol
from service.http.problems import Problem
from service.telemetry.logs import new_request_id

MAX_URL_BYTES = 16 * 2**10
MAX_HEAD_BYTES = 64 * 2**10  # the URL and all headers
MAX_HEADERS = 100
HEAD_SECONDS = 30  # how long a head may take to arrive
log = logging.getLogger("gpq.access")


class LimitedProtocol(BoundedProtocol):
    """Replies 408, 414 or 431 to a head beyond the limits, and closes the connection.

    The same limit of bytes holds for everything else that is not body: the lengths of chunks, and
    the headers behind a chunked body. At most one chunk of the socket is read beyond it.
    """

    _head_bytes = 0  # received since the last body or the last complete head
    _in_head = True  # or between two requests
    _problem: Problem | None = None
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head or not self.replying:
            self._wait_for_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self._closing():
            self._refuse(_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            detail = f"the URL is longer than {MAX_URL_BYTES} bytes"
            self._stop_parsing(Problem(414, "url-too-long", detail))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            detail = f"the request has more than {MAX_HEADERS} headers"
            self._stop_parsing(Problem(431, "too-many-headers", detail))
        if len(self.url) + sum(len(n) + len(v) for n, v in self.headers) > MAX_HEAD_BYTES:
            self._stop_parsing(_too_large())

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._problem or Problem(400, "invalid-request", msg))

    def _stop_parsing(self, problem: Problem) -> None:
        """Makes the parser fail; the protocol then calls ``send_400_response``."""
        self._problem = problem
        raise ValueError(problem.detail)

    def _wait_for_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self.replying:  # to the request before
            self._wait_for_head()
        elif not self._closing():
            detail = f"the headers took longer than {HEAD_SECONDS} seconds"
            self._refuse(Problem(408, "slow-headers", detail))

    def _closing(self) -> bool:
        return self.transport.is_closing()

    def _refuse(self, problem: Problem) -> None:
        if self.replying:  # another reply would end up within this one
            self.transport.close()
            return
        title = HTTPStatus(problem.status).phrase
        content = {"type": "about:blank", "title": title, "status": problem.status}
        content |= {"detail": problem.detail, "instance": "", "code": problem.code}
        id = new_request_id()
        body = json.dumps({**content, "request": id}).encode()
        headers = {**HEADERS, "Content-Type": MEDIA_TYPE, "Content-Length": len(body)}
        headers["X-Request-Id"] = id
        about = {"request": id, "status": problem.status}
        log.info("refused %d: %s", problem.status, problem.detail, extra=about)
        lines = [f"HTTP/1.1 {problem.status} {title}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()


def _too_large() -> Problem:
    return Problem(431, "headers-too-large", f"the headers are larger than {MAX_HEAD_BYTES} bytes")
