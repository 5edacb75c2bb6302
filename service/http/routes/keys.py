"""Routes below /keys: API keys."""

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Path, Request
from sqlalchemy.exc import SQLAlchemyError

from service.access import keys
from service.errors import NoSuchKey
from service.http.dependencies import ReadyRuntime, database_route
from service.http.openapi import body
from service.http.replies.administration import KeyReply, KeysReply, NewKeyReply
from service.http.requests import images as requests
from service.http.requests.images import KeyBody
from service.runtime import Runtime

router = APIRouter()

Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="number of a key", examples=[1])]
KEY_BODY = {
    "application/json": {
        "schema": KeyBody.model_json_schema(),
        "example": {"name": "shop", "scopes": ["search"], "expires": "2030-01-01T00:00:00Z"},
    }
}


@router.post(
    "/keys",
    summary="Create a key",
    status_code=201,
    response_model=NewKeyReply,
    openapi_extra=body(KEY_BODY),
)
async def create(request: Request, runtime: ReadyRuntime) -> NewKeyReply:
    """Returns the secret of the new key, which is not shown again. From the first key on, every
    request needs one."""
    with runtime.image_requests.admit():
        wanted = await requests.key_json(request)
        made = await runtime.image_requests.run(lambda: _create(wanted, runtime))
        request.state.about = {"key": made.number, "name": made.name, "scopes": made.scopes}
        return made


@router.get("/keys", summary="List the keys", response_model=KeysReply)
@database_route
def page(runtime: ReadyRuntime) -> KeysReply:
    """Lists all keys of the database, also those that have expired or were revoked."""
    return KeysReply(keys=[KeyReply.of(key) for key in runtime.store.keys.all()])


@router.delete("/keys/{number}", summary="Revoke a key", response_model=KeyReply)
@database_route
def revoke(number: Number, runtime: ReadyRuntime) -> KeyReply:
    """Makes a key invalid, at once here and within about a second in other processes."""
    key = runtime.store.keys.revoke(number, keep_admin=not runtime.settings.api_keys)
    if key is None:
        raise NoSuchKey(number)
    _refresh(runtime)
    return KeyReply.of(key)


def _create(wanted: KeyBody, runtime: Runtime) -> NewKeyReply:
    expires = wanted.expires.timestamp() if wanted.expires else None
    configured = bool(runtime.settings.api_keys)
    key, secret = keys.create(
        runtime.store.keys, wanted.name, wanted.scopes, wanted.prefix, expires, configured
    )
    _refresh(runtime)
    return NewKeyReply(key=secret, **KeyReply.of(key).model_dump())


def _refresh(runtime: Runtime) -> None:
    with suppress(SQLAlchemyError):  # the change is made, and the ring follows soon
        runtime.keys.refresh()
