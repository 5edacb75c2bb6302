"""Finds out who sends a request, and whether they may.

Keys come as `Authorization: Bearer`. Routes say which scopes they need; images with other ids than
those of a key's prefix do not exist for it.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.access.keys import ANYBODY, Caller
from service.access.rates import Standing
from service.database.job_records import Scope
from service.errors import Unavailable
from service.http.problems import Problem, outside
from service.runtime import Runtime
from service.settings import is_address

READING = ("GET", "HEAD")
bearer = HTTPBearer(
    auto_error=False, description="a key of this service, if it has any: see GPQ_API_KEYS and /keys"
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
Check = Callable[..., Awaitable[None]]


def allow(*scopes: Scope, early: bool = False) -> Check:
    """Returns a dependency that admits callers with one of the scopes, and administrators.

    ``early``: also anybody as long as the keys of the database are not known, if the settings have
    none. The dependency raises Problem 401, 403 or 429, or Unavailable.
    """

    async def check(request: Request, credentials: Credentials) -> None:
        caller = _caller(request, credentials, early)
        if not caller.may(scopes):
            needed = " or ".join([*scopes, "admin"] if "admin" not in scopes else scopes)
            raise Problem(403, "scope", f"this key lacks the scope {needed}")

    return check


async def allow_images(request: Request, credentials: Credentials) -> None:
    """Admits readers of an image, and with the scope index its writers. Raises as ``allow``, and
    Problem 403 for an id beyond the prefix of the key."""
    caller = _caller(request, credentials)
    reading = request.method in READING
    needed: tuple[Scope, ...] = ("search", "index") if reading else ("index",)
    if not caller.may(needed):
        raise Problem(403, "scope", f"this key lacks the scope {' or '.join(needed)}")
    if not request.path_params.get("id", caller.prefix).startswith(caller.prefix):
        raise outside(caller.prefix)


def caller_of(request: Request) -> Caller:
    """Returns who sends a request that was admitted."""
    caller: Caller = getattr(request.state, "caller", ANYBODY)
    return caller


def _caller(
    request: Request, credentials: HTTPAuthorizationCredentials | None, early: bool = False
) -> Caller:
    """Raises Problem 401 without a valid key, if keys are required, or 429; Unavailable as long as
    the keys of the database are not known."""
    runtime: Runtime = request.app.state.runtime
    # A proxy may pass on whatever a client calls itself.
    given = request.client.host if request.client else ""
    address = given if is_address(given) else "unknown"
    secret = credentials.credentials if credentials else ""
    open_early = early and not runtime.keys.required
    if not (runtime.keys.loaded or open_early or runtime.keys.is_configured(secret)):
        raise Unavailable(runtime.not_ready or "starting")
    caller = _find(runtime, secret, address) if runtime.keys.required else ANYBODY
    request.state.caller = caller
    standing = runtime.rates.count(address if caller is ANYBODY else caller.name)
    if standing is not None:
        request.state.headers = _headers(standing)  # RequestTimer sends them, with errors too
        if not standing.allowed:
            detail = f"more than {standing.limit} requests a second; try again"
            wait = {"Retry-After": str(standing.reset)}
            raise Problem(429, "too-many-requests", detail, headers=wait)
    return caller


def _find(runtime: Runtime, secret: str, address: str) -> Caller:
    standing = runtime.rates.may_try(address)
    if not standing.allowed and not runtime.keys.known(address, secret):
        raise Problem(
            429,
            "too-many-wrong-keys",
            f"more than {standing.limit} wrong keys a minute from {address}; try again later",
            headers={"Retry-After": str(standing.reset)},
        )
    caller = runtime.keys.find(secret, address)
    if caller is None:
        if secret:
            runtime.rates.count_wrong_key(address, secret)
        raise Problem(
            401,
            "unauthorized",
            "send `Authorization: Bearer` with a key of this service",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return caller


def _headers(standing: Standing) -> dict[str, str]:
    """Returns the headers of draft-ietf-httpapi-ratelimit-headers."""
    return {
        "RateLimit-Policy": f'"default";q={standing.limit};w=1',
        "RateLimit": f'"default";r={standing.remaining};t={standing.reset}',
    }
