"""Health, model and statistics."""

from typing import Any

from fastapi import APIRouter

from gpq import __version__
from service.replies import ModelReply, StatsReply
from service.routes import AnyRuntime, ReadyRuntime

public = APIRouter()
router = APIRouter()


@public.get("/livez", summary="The process answers")
async def livez() -> dict[str, str]:
    """200 as long as the process runs; says nothing of the database."""
    return {"status": "alive"}


@public.get("/readyz", summary="Ready to search")
async def readyz(runtime: AnyRuntime) -> dict[str, str]:
    """200, or 503 with the reason."""
    runtime.require_ready()
    return {"status": "ready"}


@router.get("/model", summary="The active model", response_model=ModelReply)
async def model(runtime: AnyRuntime) -> dict[str, Any]:
    """Its id, code length, classes, and what it was measured to do."""
    about = runtime.model.about
    measured = about.get("measured")
    return {
        "id": runtime.model.id,
        "bits": runtime.model.bits,
        "classes": about.get("classes", []),
        "mAP": measured["mAP_tie_aware"] if measured else None,
        "measured": measured,
    }


@router.get("/stats", summary="Counts", response_model=StatsReply)
def stats(runtime: ReadyRuntime) -> dict[str, Any]:
    """Counts of the index and the position in the change feed."""
    total, unique, largest = runtime.store.counts()
    return {
        "images": total,
        "engine": runtime.index.engine,
        "engine_reason": f"GPQ_SCAN={runtime.settings.scan}",
        "unique_codes": unique,
        "largest_tie": largest,
        "feed": {"applied": runtime.feed.applied, "head": runtime.store.head()},
        "version": __version__,
    }
