"""POST /search: the nearest pictures to an upload or to a stored one."""

import time
from typing import Any

from fastapi import APIRouter, Request

from service import uploads
from service.catalogue import Hit
from service.replies import SearchReply
from service.routes import ReadyRuntime
from service.runtime import Runtime
from service.uploads import SearchById, SearchOptions

router = APIRouter()

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        **SearchOptions.model_json_schema()["properties"],
                    },
                }
            },
            "application/json": {
                "schema": SearchById.model_json_schema(),
                "example": {"id": "red-car-1", "k": 10},
            },
        },
    }
}


@router.post(
    "/search", summary="Find the nearest pictures", response_model=SearchReply, openapi_extra=BODY
)
async def search(request: Request, runtime: ReadyRuntime) -> dict[str, Any]:
    """Top-k by mean cosine, in [-1, 1], higher is nearer; ties in order of storing."""
    started = time.perf_counter()
    with runtime.gate.slot():
        hits, query = await _search(request, runtime)
    return {
        "results": [{"id": h.id, "score": h.score, "metadata": h.metadata} for h in hits],
        "model": runtime.model.id,
        "took_ms": round((time.perf_counter() - started) * 1000, 2),
        "query": query,
    }


async def _search(request: Request, runtime: Runtime) -> tuple[list[Hit], str]:
    catalogue = runtime.catalogue
    if uploads.media_type(request) == "application/json":
        wanted = await uploads.search_json(request)
        return await runtime.gate.run(
            lambda: catalogue.search_stored(wanted.id, wanted.k, wanted.min_score)
        )
    async with uploads.form(request, max_files=1) as fields:
        file, options = uploads.search_form(fields)
        hits = await runtime.gate.run(
            lambda: catalogue.search_picture(file.file.read(), options.k, options.min_score)
        )
    return hits, "image"
