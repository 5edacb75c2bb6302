"""Replies to every error with RFC 9457 problem+json, in one shape on every route.

{"type", "title", "status", "detail", "instance", "code", "request", …}
"""

import errno
import json
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gpq.errors import GPQError
from service.errors import ServiceError, StorageFull, Unavailable
from service.http.problems import Problem, problem_of

POSTGRES_DISK_FULL = "53100"  # the SQLSTATE disk_full
SQLITE_DISK_FULL = "database or disk is full"  # the text of SQLITE_FULL
MEDIA_TYPE = "application/problem+json"
# Of every reply, unless its route sends others.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
log = logging.getLogger("gpq.service")


class ProblemResponse(JSONResponse):
    """ASCII JSON, which can echo whatever a client sent, lone surrogates included."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def response(request: Request, problem: Problem) -> JSONResponse:
    """Returns the reply to a request that met a problem."""
    request_id = request.scope.get("state", {}).get("request_id", "")
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": request.url.path,
        "code": problem.code,
        "request": request_id,
        **problem.more,
    }
    headers = {**HEADERS, "X-Request-Id": request_id, **problem.headers}
    return ProblemResponse(body, problem.status, headers=headers)


def install(app: FastAPI) -> None:
    """Routes every kind of error of ``app`` through ``response``."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> JSONResponse:
        return response(request, error)

    @app.exception_handler(ServiceError)
    @app.exception_handler(GPQError)
    async def _service(request: Request, error: ServiceError | GPQError) -> JSONResponse:
        problem = problem_of(error)
        return response(request, problem) if problem else await _unexpected(request, error)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        headers = dict(error.headers or {})
        problem = Problem(error.status_code, code, str(error.detail), headers=headers)
        return response(request, problem)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> JSONResponse:
        places = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()]
        return response(request, Problem(422, "invalid-field", "; ".join(places)))

    @app.exception_handler(SQLAlchemyError)
    async def _database(request: Request, error: SQLAlchemyError) -> JSONResponse:
        cause = error.orig if isinstance(error, DBAPIError) else error
        log.error("database: %s", cause)
        if getattr(cause, "sqlstate", None) == POSTGRES_DISK_FULL or SQLITE_DISK_FULL in str(cause):
            return await _service(request, StorageFull("the database's disk is full"))
        return await _service(request, Unavailable("the database does not answer; try again"))

    @app.exception_handler(OSError)
    async def _disk(request: Request, error: OSError) -> JSONResponse:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return await _service(request, StorageFull("the disk for uploads is full"))
        return await _unexpected(request, error)

    @app.exception_handler(ClientDisconnect)
    async def _gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        # The client is gone; the reply only sets the status that is counted.
        return response(request, Problem(400, "incomplete-body", "the request body ended early"))

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.exception("unexpected error at %s", request.url.path, exc_info=error)
        problem = Problem(500, "internal", "an internal error; the service's log has the details")
        return response(request, problem)
