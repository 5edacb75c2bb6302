"""Routes below /keys: API keys."""

import time
from typing import Annotated

from fastapi import APIRouter, Path, Request

from service.access import keys
from service.database.records import Key
from service.errors import NoSuchKey, Refused
from service.http import requests
from service.http.admin_replies import KeyReply, KeysReply, NewKeyReply
from service.http.dependencies import ReadyRuntime, database_route
from service.http.openapi import body
from service.http.requests import KeyBody
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
        return await runtime.image_requests.run(lambda: _create(wanted, runtime))


@router.get("/keys", summary="List the keys", response_model=KeysReply)
@database_route
def page(runtime: ReadyRuntime) -> KeysReply:
    """Lists all keys of the database, also those that have expired or were revoked."""
    return KeysReply(keys=[KeyReply.of(key) for key in runtime.store.keys.all()])


@router.delete("/keys/{number}", summary="Revoke a key", response_model=KeyReply)
@database_route
def revoke(number: Number, runtime: ReadyRuntime) -> KeyReply:
    """Makes a key invalid, at once here and within about a second in other processes."""
    others = (key for key in runtime.store.keys.all() if key.number != number)
    if not runtime.settings.api_keys and not any(map(_manages_keys, others)):
        raise Refused(
            "this is the last key that can manage keys: create another one with the scope admin "
            "first, or use `gpq keys revoke`"
        )
    key = runtime.store.keys.revoke(number)
    if key is None:
        raise NoSuchKey(number)
    runtime.keys.refresh()
    return KeyReply.of(key)


def _create(wanted: KeyBody, runtime: Runtime) -> NewKeyReply:
    if not runtime.keys.has_admin and "admin" not in wanted.scopes:
        raise Refused(
            "from the first key on, every request needs one: create one with the scope admin first"
        )
    expires = wanted.expires.timestamp() if wanted.expires else None
    key, secret = keys.create(
        runtime.store.keys, wanted.name, wanted.scopes, wanted.prefix, expires
    )
    runtime.keys.refresh()
    return NewKeyReply(key=secret, **KeyReply.of(key).model_dump())


def _manages_keys(key: Key) -> bool:
    return "admin" in key.scopes and key.valid(time.time())
