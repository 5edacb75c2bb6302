"""HTTP routes, one module a path."""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Annotated, Any, ParamSpec, TypeVar, cast

from fastapi import Depends, Request

from service.runtime import Runtime

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


def light(route: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """A route that blocks and reads no body: in the places there are for these, 429 without."""

    @wraps(route)
    async def gated(*args: P.args, **given: P.kwargs) -> R:
        gate = cast(Runtime, given["runtime"]).light
        with gate.slot():
            return await gate.run(partial(route, *args, **given))

    return gated


# Both ways to say it: pages that show forms look for the one or the other.
FILE = {
    "type": "string",
    "format": "binary",
    "contentMediaType": "application/octet-stream",
}


def body(content: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI of a request body that ``uploads`` reads: media type -> schema and example."""
    return {"requestBody": {"required": True, "content": content}}


def form(example: dict[str, Any], required: str, **fields: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI of a multipart form."""
    schema = {"type": "object", "required": [required], "properties": fields}
    return {"multipart/form-data": {"schema": schema, "example": example}}
