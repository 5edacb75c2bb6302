"""Health, model and statistics."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST

from gpq import __version__
from service.database.records import Replica
from service.http.routes import AnyRuntime, ReadyRuntime, light
from service.http.schemas import ModelReply, StatsReply, StatusReply
from service.runtime import Runtime

CHECKSUM = Query(
    description="also hash all codes, in memory and in the database: equal unless they drifted; "
    "takes seconds a million and holds up writes here"
)
METRICS = {
    "description": "The text format of Prometheus",
    "content": {"text/plain": {"schema": {"type": "string"}, "example": "gpq_images 300.0"}},
}
public = APIRouter()
router = APIRouter()


@public.get("/livez", summary="The process answers", response_model=StatusReply)
async def livez() -> dict[str, str]:
    """200 as long as the process runs; says nothing of the database."""
    return {"status": "alive"}


@public.get("/readyz", summary="Ready to search", response_model=StatusReply)
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


@router.get(
    "/stats",
    summary="Counts, engine and feed",
    response_model=StatsReply,
    response_model_exclude_none=True,
)
@light
def stats(runtime: ReadyRuntime, checksum: Annotated[bool, CHECKSUM] = False) -> dict[str, Any]:
    """Counts of the database, the scan engine, and how far this and other processes are."""
    applied = runtime.feed.applied
    head, lag = runtime.store.reader.lag(applied)
    total, unique, largest = runtime.catalogue.counts(head)
    replicas = [_replica(replica) for replica in runtime.store.replicas.alive()]
    engine = runtime.feed.index.engine
    no_room = f"the codes have no room on the device of {runtime.engine}; the log says when"
    return {
        "images": total,
        "engine": engine,
        "engine_reason": runtime.engine_reason if engine == runtime.engine else no_room,
        "unique_codes": unique,
        "largest_tie": largest,
        "feed": {
            "applied": applied,
            "head": head,
            "lag_s": round(lag, 3),
            "replicas": replicas,
        },
        "checksum": _checksum(runtime) if checksum else None,
        "version": __version__,
    }


@router.get(
    "/metrics",
    summary="Counters and times, for Prometheus",
    response_class=Response,
    responses={200: METRICS},
)
@light
def metrics(runtime: AnyRuntime) -> Response:
    """Of this process: requests, where their time goes, batches, pictures."""
    return Response(runtime.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _replica(replica: Replica) -> dict[str, Any]:
    p99 = replica.search_p99
    return {
        "name": replica.name,
        "applied": replica.applied,
        "age_s": round(replica.age, 3),
        "search_p99_ms": None if p99 is None else round(p99 * 1000, 1),
    }


def _checksum(runtime: Runtime) -> dict[str, Any]:
    seq, memory, database = runtime.feed.checksums()
    return {"seq": seq, "memory": memory, "database": database}
