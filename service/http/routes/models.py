"""The models that have codes: add one, let it take over, go back."""

from collections.abc import Callable
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Path, Request, Response

from gpq.errors import ArtifactError
from gpq.model import artifact
from service.database.records import ModelRow
from service.http import forms
from service.http.routes import FILE, ReadyRuntime, body, form, light
from service.http.schemas import ActiveReply, ModelRowReply, ModelsReply
from service.models import activation, artifacts
from service.problems import Problem
from service.runtime import Runtime
from service.settings import FEED_POLL_SECONDS

router = APIRouter()

Id = Annotated[str, Path(pattern="^[0-9a-f]{1,64}$", description="of a model, or how it begins")]
BODY = form(
    {"config": "(the file config.json)", "weights": "(the file model.safetensors)"},
    "config",
    config={**FILE, "description": f"{artifact.CONFIG} of the model's folder"},
    weights={**FILE, "description": f"{artifact.WEIGHTS} of the model's folder"},
)


@router.get("/models", summary="List the models", response_model=ModelsReply)
@light
def all_models(runtime: ReadyRuntime) -> dict[str, Any]:
    """In the order they were added; how many pictures lack a code of each."""
    return {"models": [_reply(row.id, runtime) for row in runtime.store.models.all()]}


@router.post(
    "/models",
    summary="Add a model",
    status_code=201,
    response_model=ModelRowReply,
    openapi_extra=body(BODY),
)
async def add(request: Request, response: Response, runtime: ReadyRuntime) -> dict[str, Any]:
    """Its files are verified; from now on each picture stored gets a code of it too. Those that
    are stored already get theirs by `POST /jobs/reindex`; then it can be activated."""
    with runtime.gate.slot():
        async with forms.form(request, max_files=2) as fields:
            config, weights = forms.artifact_form(fields)
            files = {artifact.CONFIG: await config.read(), artifact.WEIGHTS: await weights.read()}
        id = await runtime.gate.run(lambda: _add(files, runtime))
        response.headers["Location"] = f"/models/{id}"
        return await runtime.gate.run(lambda: _reply(id, runtime))


@router.post(
    "/models/rollback", summary="Search by the model before again", response_model=ActiveReply
)
async def roll_back(runtime: ReadyRuntime) -> dict[str, str]:
    """At once and everywhere. 409 where there is none, or it was taken out."""
    return await _activate(lambda: activation.before(runtime.store), runtime)


@router.post("/models/{id}/activate", summary="Search by this model", response_model=ActiveReply)
async def activate(id: Id, runtime: ReadyRuntime) -> dict[str, str]:
    """At once and everywhere, as soon as every live process has loaded its codes. 409 where
    pictures have none yet."""
    return await _activate(lambda: activation.find(runtime.store, id), runtime)


@router.delete("/models/{id}", summary="Take a model out", status_code=204)
@light
def remove(id: Id, runtime: ReadyRuntime) -> None:
    """And, within moments, its codes. 409 for the active one."""
    runtime.store.models.remove(activation.find(runtime.store, id).id)


async def _activate(find: Callable[[], ModelRow], runtime: Runtime) -> dict[str, str]:
    """Asked again and again: no thread is held while other processes load the codes."""
    with runtime.light.slot():
        row = await runtime.light.run(find)
        deadline = activation.give_up_at()

        def attempt() -> str | None:
            return activation.attempt(runtime.store, row, deadline)

        while (until_now := await runtime.light.run(attempt)) is None:
            await anyio.sleep(FEED_POLL_SECONDS)
        return {"active": row.id, "before": until_now}


def _add(files: dict[str, bytes], runtime: Runtime) -> str:
    try:
        model = artifacts.load(files, runtime.device)
    except ArtifactError as error:
        raise Problem(422, "invalid-model", str(error)) from error
    runtime.store.models.add(model.id, files)
    return model.id


def _reply(id: str, runtime: Runtime) -> dict[str, Any]:
    row = runtime.store.models.get(id)
    lacking = 0 if row.whole else runtime.store.models.count_missing(row.number)
    return {
        "id": row.id,
        "active": row.active,
        "ready": row.whole,
        "without_code": lacking,
        "added": row.added,
    }
