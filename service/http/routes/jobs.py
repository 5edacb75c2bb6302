"""Routes below /jobs: imports and re-indexes."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from service.database.job_records import Job, JobKind
from service.errors import NoSuchJob, SourceError
from service.http.dependencies import DEFAULT_PAGE, Limit, ReadyRuntime, database_route
from service.http.openapi import body
from service.http.problems import Problem
from service.http.replies.administration import FailureReply, FailuresReply, JobReply, JobsReply
from service.http.requests import images as requests
from service.http.requests.images import ImportBody
from service.runtime import Runtime
from service.sources import import_folder
from service.sources.import_folder import ImportFolder

MOST_JOBS = 2**31 - 1
router = APIRouter()

Number = Annotated[int, Path(ge=1, le=MOST_JOBS, description="number of a job", examples=[1])]
Cursor = Annotated[int, Query(ge=0, le=MOST_JOBS, description="`next_cursor` of the page before")]
ACCEPTED: dict[str, Any] = {"response_model": JobReply, "status_code": 202}
IMPORT_BODY = {
    "application/json": {
        "schema": ImportBody.model_json_schema(),
        "example": {"source": "new-arrivals"},
    }
}


@router.post("/jobs/import", summary="Import images", openapi_extra=body(IMPORT_BODY), **ACCEPTED)
async def ask_import(request: Request, response: Response, runtime: ReadyRuntime) -> JobReply:
    """Stores many images in the background. The same request continues an interrupted import;
    images stored already are only read."""
    with runtime.image_requests.admit():
        source = await requests.import_json(request)
        request.state.about = {"source": source}
        return await runtime.image_requests.run(lambda: _import(source, response, runtime))


@router.post("/jobs/reindex", summary="Re-index", **ACCEPTED)
@database_route
def ask_reindex(response: Response, runtime: ReadyRuntime) -> JobReply:
    """Computes codes of added models for all stored images, from their originals, in the
    background. Searches continue with the active model."""
    return ask("reindex", "", response, runtime)


@router.get("/jobs", summary="List the jobs", response_model=JobsReply)
@database_route
def page(runtime: ReadyRuntime, limit: Limit = DEFAULT_PAGE) -> JobsReply:
    """Lists jobs, the newest first, including jobs of the command line."""
    return JobsReply(jobs=[JobReply.of(job) for job in runtime.store.jobs.page(limit)])


@router.get("/jobs/{number}", summary="Describe a job", response_model=JobReply)
@database_route
def get(number: Number, runtime: ReadyRuntime) -> JobReply:
    """Returns how many entries are done, failed ones among them, and an estimate of the time
    left."""
    return JobReply.of(_get(number, runtime))


@router.get(
    "/jobs/{number}/failures", summary="List the failures of a job", response_model=FailuresReply
)
@database_route
def failures(
    number: Number, runtime: ReadyRuntime, limit: Limit = DEFAULT_PAGE, cursor: Cursor = 0
) -> FailuresReply:
    """Lists the entries that could not be used, and why, in the order of the source."""
    _get(number, runtime)
    found = runtime.store.jobs.failures(number, cursor, limit)
    return FailuresReply(
        failures=[FailureReply(name=each.name, reason=each.reason) for each in found],
        next_cursor=found[-1].number if len(found) == limit else None,
    )


@router.delete("/jobs/{number}", summary="Cancel a job", response_model=JobReply)
@database_route
def cancel(number: Number, runtime: ReadyRuntime) -> JobReply:
    """Stops a job after the images in progress; stored images stay. 409 if it has ended."""
    _get(number, runtime)
    if not runtime.store.jobs.cancel(number):
        raise Problem(409, "job-ended", f"job {number} has ended already")
    return JobReply.of(_get(number, runtime))


def _import(source: str, response: Response, runtime: Runtime) -> JobReply:
    if runtime.settings.import_folder is None:
        raise Problem(403, "no-import", import_folder.OFF)
    try:
        name = ImportFolder(runtime.settings).name(source)
    except SourceError as error:
        raise Problem(422, "invalid-source", f"source: {error}") from error
    return ask("import", name, response, runtime)


def ask(kind: JobKind, source: str, response: Response, runtime: Runtime) -> JobReply:
    """Requests a job, and replies where it is."""
    number = runtime.store.jobs.request(kind, source, by_service=True)
    response.headers["Location"] = f"/jobs/{number}"
    return JobReply.of(_get(number, runtime))


def _get(number: int, runtime: Runtime) -> Job:
    """Raises NoSuchJob."""
    job = runtime.store.jobs.get(number)
    if job is None:
        raise NoSuchJob(number)
    return job
