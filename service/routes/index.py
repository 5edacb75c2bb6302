"""POST /index: store pictures and make them searchable."""

from typing import Any

from fastapi import APIRouter, Request

from service import uploads
from service.problems import Problem
from service.replies import IndexReply
from service.routes import ReadyRuntime
from service.runtime import Runtime

router = APIRouter()

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                        },
                        "ids": {"type": "string", "description": "JSON array, one id an image"},
                        "metadata": {
                            "type": "string",
                            "description": "JSON array, one object an image; null clears",
                        },
                        "model": {"type": "string", "description": "409 unless it is active"},
                    },
                }
            }
        },
    }
}


@router.post(
    "/index",
    summary="Store pictures",
    response_model=IndexReply,
    response_model_exclude_none=True,
    openapi_extra=BODY,
)
async def index(request: Request, runtime: ReadyRuntime) -> dict[str, Any]:
    """Store pictures; each succeeds or fails alone, and is searchable before the reply."""
    with runtime.gate.slot():
        items = await _put(request, runtime)
    failed = [item for item in items if item["status"] == "failed"]
    if len(failed) == len(items):
        first = failed[0]["error"]["detail"]
        raise Problem(422, "all-failed", f"no image could be stored; first: {first}", items=items)
    return {"errors": bool(failed), "items": items}


async def _put(request: Request, runtime: Runtime) -> list[dict[str, Any]]:
    async with uploads.form(request, runtime.settings.max_images) as fields:
        return await runtime.gate.run(
            lambda: runtime.catalogue.put(uploads.index_uploads(fields, runtime.model.id))
        )
