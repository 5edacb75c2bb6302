"""GET and DELETE /images/{id}: one stored picture."""

from typing import Any

from fastapi import APIRouter

from service.catalogue import decode_metadata
from service.replies import ImageReply
from service.routes import ReadyRuntime

router = APIRouter()


@router.get("/images/{id}", response_model=ImageReply)
def get(id: str, runtime: ReadyRuntime) -> dict[str, Any]:
    """What is kept of a picture."""
    row = runtime.catalogue.get(id)
    return {**row._mapping, "metadata": decode_metadata(row.metadata)}


@router.delete("/images/{id}", status_code=204)
def delete(id: str, runtime: ReadyRuntime) -> None:
    """Take a picture out; no later search finds it."""
    runtime.catalogue.delete(id)
