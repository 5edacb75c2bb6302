"""Errors -> RFC 9457 problem+json, one shape on every route.

{"type", "title", "status", "detail", "instance", "code", …}
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

from service.database.records import JobError, ModelError, NoSuchModel
from service.problems import Problem, unavailable

POSTGRES_DISK_FULL = "53100"  # the SQLSTATE disk_full
SQLITE_DISK_FULL = "database or disk is full"  # the text of SQLITE_FULL
MEDIA_TYPE = "application/problem+json"
log = logging.getLogger("gpq.service")


class ProblemResponse(JSONResponse):
    """ASCII JSON: what a client sent, lone surrogates too, can be said back to it."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def response(request: Request, problem: Problem) -> JSONResponse:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": request.url.path,
        "code": problem.code,
        **problem.more,
    }
    return ProblemResponse(body, problem.status, headers=problem.headers)


def install(app: FastAPI) -> None:
    """Route every kind of error of ``app`` through ``response``."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> JSONResponse:
        return response(request, error)

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

    @app.exception_handler(ModelError)
    @app.exception_handler(JobError)
    async def _conflict(request: Request, error: ModelError | JobError) -> JSONResponse:
        if isinstance(error, NoSuchModel):
            return response(request, Problem(404, "no-such-model", str(error)))
        return response(request, Problem(409, "conflict", str(error)))

    @app.exception_handler(SQLAlchemyError)
    async def _database(request: Request, error: SQLAlchemyError) -> JSONResponse:
        cause = error.orig if isinstance(error, DBAPIError) else error
        log.error("database: %s", cause)
        if getattr(cause, "sqlstate", None) == POSTGRES_DISK_FULL or SQLITE_DISK_FULL in str(cause):
            return response(request, Problem(507, "disk-full", "the database's disk is full"))
        return response(request, unavailable("the database does not answer; try again"))

    @app.exception_handler(OSError)
    async def _disk(request: Request, error: OSError) -> JSONResponse:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return response(request, Problem(507, "disk-full", "the disk for uploads is full"))
        return await _unexpected(request, error)

    @app.exception_handler(ClientDisconnect)
    async def _gone(request: Request, error: ClientDisconnect) -> JSONResponse:  # nobody reads it
        return response(request, Problem(400, "incomplete-body", "the request body ended early"))

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.exception("unexpected error at %s", request.url.path, exc_info=error)
        return response(request, Problem(500, "internal", "an error on our side; it is logged"))
