"""Drops the work of a request whose client closes the connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import Request

from service.concurrency import wait_budget
from service.errors import ClientGone


@asynccontextmanager
async def wanted(request: Request) -> AsyncIterator[None]:
    """Cancels the context when the client is gone, and abandons the work of the request.

    Enter it when the body has been read. A thread that the context waits for is not interrupted;
    it finds out at its next image. Raises ClientGone.
    """
    work = wait_budget.current().work
    with anyio.CancelScope() as scope:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            work.abandon()
            scope.cancel()

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
    if scope.cancelled_caught:
        raise ClientGone
