"""Provides the runtime to routes, and limits how many run at once."""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Annotated, ParamSpec, TypeVar, cast

from fastapi import Depends, Query, Request

from service.runtime import Runtime

MAX_PAGE = 1000  # entries in one page of a listing
DEFAULT_PAGE = 100

P = ParamSpec("P")
R = TypeVar("R")


async def _runtime(request: Request) -> Runtime:
    return cast(Runtime, request.app.state.runtime)


async def _ready_runtime(request: Request) -> Runtime:
    runtime = await _runtime(request)
    runtime.require_ready()
    return runtime


AnyRuntime = Annotated[Runtime, Depends(_runtime)]
ReadyRuntime = Annotated[Runtime, Depends(_ready_runtime)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="most entries to return")]


def database_route(route: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """Turns a blocking route that only queries the database into a coroutine.

    These routes share one admission limit; requests beyond it get 429.
    """

    @wraps(route)
    async def admitted(*args: P.args, **given: P.kwargs) -> R:
        runtime = cast(Runtime, given["runtime"])
        with runtime.database_requests.admit():
            return await runtime.database_requests.run(partial(route, *args, **given))

    return admitted
