"""Health, model, statistics and metrics."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST

from gpq import __version__
from service.http.dependencies import AnyRuntime, ReadyRuntime, database_route
from service.http.replies.images import (
    ChecksumReply,
    CopyCountsReply,
    FeedReply,
    FieldReply,
    ModelReply,
    NetworkReply,
    ReplicaReply,
    StatsReply,
    StatusReply,
)
from service.runtime import Runtime

CHECKSUM = Query(
    description="also hash all codes, in memory and in the database: the hashes are equal unless "
    "memory has drifted; takes seconds for each million images and delays writes here"
)
METRICS = {
    "description": "The text format of Prometheus",
    "content": {"text/plain": {"schema": {"type": "string"}, "example": "gpq_images 300.0"}},
}
public = APIRouter()
router = APIRouter()


@public.get("/livez", summary="Whether the process answers", response_model=StatusReply)
async def livez() -> StatusReply:
    """Returns 200 as long as the process runs, whatever the state of the database."""
    return StatusReply(status="alive")


@public.get("/readyz", summary="Whether the service can search", response_model=StatusReply)
async def readyz(runtime: AnyRuntime) -> StatusReply:
    """Returns 200, or 503 with the reason."""
    runtime.require_ready()
    return StatusReply(status="ready")


@router.get("/model", summary="Describe the active model", response_model=ModelReply)
async def model(runtime: AnyRuntime) -> ModelReply:
    """Returns the model's id, code length, classes and measured quality."""
    about = runtime.model.about
    measured, classes = about.get("measured"), about.get("classes")
    measured = measured if isinstance(measured, dict) else None
    mAP = (measured or {}).get("mAP_tie_aware")
    return ModelReply(
        id=runtime.model.id,
        bits=runtime.model.bits,
        score=runtime.model.codebook.score,
        classes=list(map(str, classes)) if isinstance(classes, list) else [],
        mAP=mAP if isinstance(mAP, float) else None,
        measured=measured,
    )


@router.get(
    "/stats",
    summary="Return counts, engine and feed",
    response_model=StatsReply,
    response_model_exclude_none=True,
)
@database_route
def stats(runtime: ReadyRuntime, checksum: Annotated[bool, CHECKSUM] = False) -> StatsReply:
    """Returns counts of the database, what runs the network and the scan, and the progress of
    all processes."""
    follower = runtime.serving.follower
    applied = follower.applied
    head, lag = runtime.store.feed.lag(applied)
    counts = runtime.serving.catalogue.code_counts(head)
    replicas = [ReplicaReply.of(replica) for replica in runtime.store.replicas.alive()]
    engine = follower.index.engine
    full = f"the device of {runtime.engine} has no room for the codes; the log says when"
    return StatsReply(
        images=counts.images,
        engine=engine,
        engine_reason=runtime.engine_reason if engine == runtime.engine else full,
        network=_network(runtime),
        unique_codes=counts.unique,
        largest_tie=counts.largest_tie,
        feed=FeedReply(applied=applied, head=head, lag_s=round(lag, 3), replicas=replicas),
        filter_fields=[FieldReply.of(field) for field in runtime.store.fields.all()],
        copies=_copies(runtime),
        checksum=_checksum(runtime) if checksum else None,
        version=__version__,
    )


@router.get(
    "/metrics",
    summary="Return metrics for Prometheus",
    response_class=Response,
    responses={200: METRICS},
)
@database_route
def metrics(runtime: AnyRuntime) -> Response:
    """Returns counters and times of this process: requests, stages, batches, images."""
    return Response(runtime.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _network(runtime: Runtime) -> NetworkReply:
    model = runtime.model
    network = model.network
    return NetworkReply(
        engine=network.engine,
        precision=network.precision,
        device=network.device,
        reason=model.reason,
    )


def _copies(runtime: Runtime) -> CopyCountsReply | None:
    search = runtime.serving.copy_search
    return None if search is None else CopyCountsReply.of(search.copies.counts())


def _checksum(runtime: Runtime) -> ChecksumReply:
    seq, memory, database = runtime.serving.follower.checksums()
    return ChecksumReply(seq=seq, memory=memory, database=database)
