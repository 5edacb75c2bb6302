"""Checks the `Authorization: Bearer` key of requests, if any keys are set."""

import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.http.problems import Problem
from service.settings import Settings

bearer = HTTPBearer(auto_error=False, description="one of GPQ_API_KEYS, if any are set")


async def require_key(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> None:
    """Raises Problem 401 if keys are set and the request has none of them."""
    settings: Settings = request.app.state.runtime.settings
    if not settings.api_keys:
        return
    given = credentials.credentials.encode() if credentials else b""
    # Every key is compared, so that the time taken reveals nothing.
    matches = [
        hmac.compare_digest(given, key.get_secret_value().encode()) for key in settings.api_keys
    ]
    if not any(matches):
        raise Problem(
            401,
            "unauthorized",
            "send `Authorization: Bearer` with a key of this service",
            headers={"WWW-Authenticate": "Bearer"},
        )
