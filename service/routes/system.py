"""Health, model and statistics."""

from typing import Any

from fastapi import APIRouter

from gpq import __version__
from service.replies import ModelReply, StatsReply
from service.routes import AnyRuntime, ReadyRuntime

public = APIRouter()
router = APIRouter()


@public.get("/livez")
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@public.get("/readyz")
async def readyz(runtime: AnyRuntime) -> dict[str, str]:
    """Ready to search, or 503 with the reason."""
    runtime.require_ready()
    return {"status": "ready"}


@router.get("/model", response_model=ModelReply)
async def model(runtime: AnyRuntime) -> dict[str, Any]:
    """The active model and what it was measured to do."""
    about = runtime.model.about
    measured = about.get("measured")
    return {
        "id": runtime.model.id,
        "bits": runtime.model.bits,
        "classes": about.get("classes", []),
        "mAP": measured["mAP_tie_aware"] if measured else None,
        "measured": measured,
    }


@router.get("/stats", response_model=StatsReply)
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
