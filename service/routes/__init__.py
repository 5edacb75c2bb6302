"""HTTP routes, one module a path."""

from typing import Annotated, cast

from fastapi import Depends, Request

from service.runtime import Runtime


async def _runtime(request: Request) -> Runtime:
    return cast(Runtime, request.app.state.runtime)


async def _ready_runtime(request: Request) -> Runtime:
    runtime = await _runtime(request)
    runtime.require_ready()
    return runtime


AnyRuntime = Annotated[Runtime, Depends(_runtime)]
ReadyRuntime = Annotated[Runtime, Depends(_ready_runtime)]
