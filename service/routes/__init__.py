"""HTTP routes, one module a path."""

from typing import Annotated, Any, cast

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
