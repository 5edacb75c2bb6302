"""GET and DELETE /images/{id}: one stored picture."""

from typing import Any

from fastapi import APIRouter

from service.catalogue import decode_metadata
from service.replies import ImageReply
from service.routes import ReadyRuntime

router = APIRouter()


@router.get("/images/{id}", summary="What is kept of a picture", response_model=ImageReply)
def get(id: str, runtime: ReadyRuntime) -> dict[str, Any]:
    """Its size, bytes, metadata, when it was stored, and its place in the feed."""
    row = runtime.catalogue.get(id)
    return {**row._mapping, "metadata": decode_metadata(row.metadata)}


@router.delete("/images/{id}", summary="Take a picture out", status_code=204)
def delete(id: str, runtime: ReadyRuntime) -> None:
    """No later search finds it."""
    runtime.catalogue.delete(id)
