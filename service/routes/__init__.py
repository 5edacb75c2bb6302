"""HTTP routes, one module a path."""

from typing import Annotated, cast

from fastapi import Depends, Request

from service.runtime import Runtime


def _runtime(request: Request) -> Runtime:
    return cast(Runtime, request.app.state.runtime)


def _ready_runtime(request: Request) -> Runtime:
    runtime = _runtime(request)
    runtime.require_ready()
    return runtime


AnyRuntime = Annotated[Runtime, Depends(_runtime)]
ReadyRuntime = Annotated[Runtime, Depends(_ready_runtime)]
