"""Limits the connections of the server, and ends those whose client does not read its reply."""

import asyncio
import resource
import time

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_CONNECTIONS = 1000
LOOK_SECONDS = 5.0  # between looks at what a client has read
# How long a client may take to read so many bytes, or all that wait for it.
REPLY_SECONDS, REPLY_BYTES = 30.0, 65_536
# The extension of the ASGI scope with two functions: ``abort`` ends the connection at once,
# ``closing`` tells whether it ends.
CONNECTION = "gpq.connection"


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    When too many are open, a new one replaces the one that has waited longest for its first
    request, or else one that has its reply before its body. If all have a request that is being
    handled, the new connection is closed.
    """

    _looking: asyncio.TimerHandle | None = None
    _unread, _unread_since = 0, 0.0
    waiting_since = 0.0  # for a request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.waiting_since = time.monotonic()
        self._looking = self.loop.call_later(LOOK_SECONDS, self._look)
        if len(self.connections) > _most_connections():
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {
            CONNECTION: {"abort": self.transport.abort, "closing": self.transport.is_closing}
        }

    def on_response_complete(self) -> None:
        self.waiting_since = time.monotonic()
        super().on_response_complete()

    @property
    def replying(self) -> bool:
        """Whether a request is being handled, or its body is being received."""
        return self.cycle is not None and not self.cycle.response_complete

    def _make_room(self) -> None:
        others = [each for each in self.connections if isinstance(each, BoundedProtocol)]
        free = [each for each in others if each is not self and each.dispensable is not None]
        oldest = min(free, key=lambda each: (each.dispensable, each.waiting_since), default=self)
        oldest.transport.abort()

    @property
    def dispensable(self) -> int | None:
        """How soon the connection makes room for another, 0 first; None if it never does."""
        if self.transport.is_closing():
            return None
        if not self.replying:
            return 0 if self.cycle is None else 1  # one that has had a reply is closed soon anyway
        # It has its reply, and only the rest of a body is awaited that nobody wants.
        return 2 if self.cycle.response_started and self.cycle.more_body else None

    def resume_writing(self) -> None:
        self._unread_since = time.monotonic()  # the client has read nearly all
        super().resume_writing()

    def _look(self) -> None:
        """Ends the connection if the client has read too little since the last mark."""
        self._looking = self.loop.call_later(LOOK_SECONDS, self._look)
        unread, now = self.transport.get_write_buffer_size(), time.monotonic()
        progress = unread > self._unread or unread <= self._unread - REPLY_BYTES
        if unread == 0 or progress:
            self._unread, self._unread_since = unread, now
        elif now - self._unread_since > REPLY_SECONDS:
            self.transport.abort()


def _most_connections() -> int:
    """Leaves half of the descriptors to files and the database."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MAX_CONNECTIONS, descriptors // 2)
