"""Long works: ask for them, see how far they are, cancel them."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from service.database.records import Job, JobKind
from service.http import forms
from service.http.forms import ImportWanted
from service.http.routes import ReadyRuntime, body, light
from service.http.schemas import FailuresReply, JobReply, JobsReply
from service.jobs import import_folder
from service.jobs.import_folder import ImportFolder
from service.jobs.sources import SourceError
from service.problems import Problem
from service.runtime import Runtime
from service.settings import DEFAULT_PAGE_IMAGES, MAX_PAGE_IMAGES

MOST_JOBS = 2**31 - 1
router = APIRouter()

Number = Annotated[int, Path(ge=1, le=MOST_JOBS, description="of a job", examples=[1])]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE_IMAGES, description="entries, at most")]
ACCEPTED: dict[str, Any] = {"response_model": JobReply, "status_code": 202}


IMPORT_BODY = {
    "application/json": {
        "schema": ImportWanted.model_json_schema(),
        "example": {"source": "new-arrivals"},
    }
}


@router.post(
    "/jobs/import", summary="Store many pictures", openapi_extra=body(IMPORT_BODY), **ACCEPTED
)
async def ask_import(request: Request, response: Response, runtime: ReadyRuntime) -> dict[str, Any]:
    """In the background; asked for again, one that was broken off goes on, and what is stored
    already is only read."""
    with runtime.gate.slot():
        wanted = await forms.import_json(request)
        return await runtime.gate.run(lambda: _ask_import(wanted.source, response, runtime))


@router.post("/jobs/reindex", summary="Codes of added models for all stored pictures", **ACCEPTED)
@light
def ask_reindex(response: Response, runtime: ReadyRuntime) -> dict[str, Any]:
    """From their originals, in the background; searches go on by the active model."""
    return _ask("reindex", "", response, runtime)


@router.get("/jobs", summary="List the jobs", response_model=JobsReply)
@light
def page(runtime: ReadyRuntime, limit: Limit = DEFAULT_PAGE_IMAGES) -> dict[str, Any]:
    """The newest first; also those of the command line."""
    return {"jobs": [_reply(job) for job in runtime.store.jobs.page(limit)]}


@router.get("/jobs/{number}", summary="How far a job is", response_model=JobReply)
@light
def get(number: Number, runtime: ReadyRuntime) -> dict[str, Any]:
    """Entries done, failed ones among them, and about how long it still takes."""
    return _reply(_known(number, runtime))


@router.get(
    "/jobs/{number}/failures", summary="What could not be used", response_model=FailuresReply
)
@light
def failures(
    number: Number,
    runtime: ReadyRuntime,
    limit: Limit = DEFAULT_PAGE_IMAGES,
    cursor: Annotated[
        int, Query(ge=0, le=MOST_JOBS, description="`next_cursor` of the page before")
    ] = 0,
) -> dict[str, Any]:
    """And why, in the order of the source."""
    _known(number, runtime)
    rows = runtime.store.jobs.failures(number, cursor, limit)
    return {
        "failures": [{"name": row.name, "reason": row.reason} for row in rows],
        "next_cursor": rows[-1].number if len(rows) == limit else None,
    }


@router.delete("/jobs/{number}", summary="Cancel a job", response_model=JobReply)
@light
def cancel(number: Number, runtime: ReadyRuntime) -> dict[str, Any]:
    """It ends after the pictures at hand; what is stored stays. 409 where it has ended."""
    _known(number, runtime)
    if not runtime.store.jobs.cancel(number):
        raise Problem(409, "job-ended", f"job {number} has ended already")
    return _reply(_known(number, runtime))


def _ask_import(source: str, response: Response, runtime: Runtime) -> dict[str, Any]:
    if runtime.settings.import_folder is None:
        raise Problem(403, "no-import", import_folder.OFF)
    try:
        name = ImportFolder(runtime.settings).name(source)
    except SourceError as error:
        raise Problem(422, "invalid-source", f"source: {error}") from error
    return _ask("import", name, response, runtime)


def _ask(kind: JobKind, source: str, response: Response, runtime: Runtime) -> dict[str, Any]:
    number = runtime.store.jobs.ask(kind, source, by_service=True)
    response.headers["Location"] = f"/jobs/{number}"
    return _reply(_known(number, runtime))


def _known(number: int, runtime: Runtime) -> Job:
    job = runtime.store.jobs.get(number)
    if job is None:
        raise Problem(404, "no-such-job", f"there is no job {number}")
    return job


def _reply(job: Job) -> dict[str, Any]:
    left = None
    if job.state == "running" and job.total is not None and job.done:
        left = round((job.total - job.done) * job.seconds / job.done, 1)
    return {**asdict(job), "seconds": round(job.seconds, 3), "seconds_left": left}
