"""Routes below /models: adds, activates and deletes models."""

from collections.abc import Callable
from typing import Annotated

import anyio
from fastapi import APIRouter, Path, Request, Response

from gpq.model.artifact import CONFIG, NAMES
from gpq.model.graph import GRAPH
from gpq.model.weights import WEIGHTS
from service.database.records import StoredModel
from service.http.dependencies import ReadyRuntime, database_route
from service.http.openapi import FILE, body, form
from service.http.replies.administration import ActiveReply, ModelRowReply, ModelsReply
from service.http.requests import images as requests
from service.http.requests.bodies import form as read_form
from service.models import activation, artifacts, trial
from service.runtime import Runtime
from service.settings import FEED_POLL_SECONDS

router = APIRouter()

Id = Annotated[
    str, Path(pattern="^[0-9a-f]{1,64}$", description="id of a model, or its first digits")
]
BODY = form(
    {
        "config": "(the file config.json)",
        "weights": "(the file model.safetensors)",
        "graph": "(the file network.onnx)",
    },
    "config",
    config={**FILE, "description": f"{CONFIG} of the model's folder"},
    weights={**FILE, "description": f"{WEIGHTS} of the model's folder"},
    graph={**FILE, "description": f"{GRAPH} of the model's folder"},
)


@router.get("/models", summary="List the models", response_model=ModelsReply)
@database_route
def all_models(runtime: ReadyRuntime) -> ModelsReply:
    """Lists models in the order in which they were added, and how many images lack a code."""
    models = runtime.store.models.all()
    return ModelsReply(models=[_reply(model.id, runtime) for model in models])


@router.post(
    "/models",
    summary="Add a model",
    status_code=201,
    response_model=ModelRowReply,
    openapi_extra=body(BODY),
)
async def add(request: Request, response: Response, runtime: ReadyRuntime) -> ModelRowReply:
    """Verifies and adds a model. Every image stored from now on gets a code of it;
    `POST /jobs/reindex` gives the others theirs. Then the model can be activated."""
    admission = runtime.image_requests
    with admission.admit():
        async with read_form(request, max_files=len(NAMES)) as fields:
            parts = requests.artifact_form(fields)
            files = {
                name: await part.read() for name, part in zip(NAMES, parts, strict=True) if part
            }
        id = await admission.run(lambda: _add(files, runtime))
        request.state.about = {"model": id}
        response.headers["Location"] = f"/models/{id}"
        return await admission.run(lambda: _reply(id, runtime))


@router.post("/models/rollback", summary="Activate the previous model", response_model=ActiveReply)
async def roll_back(runtime: ReadyRuntime) -> ActiveReply:
    """Activates the previously active model, everywhere at once. 409 if none exists."""
    return await _activate(lambda: activation.previous(runtime.store), runtime)


@router.post("/models/{id}/activate", summary="Activate a model", response_model=ActiveReply)
async def activate(id: Id, runtime: ReadyRuntime) -> ActiveReply:
    """Searches with this model, everywhere at once, as soon as every live process has loaded its
    codes. 409 if images lack a code of it."""
    return await _activate(lambda: activation.find(runtime.store, id), runtime)


@router.delete("/models/{id}", summary="Delete a model", status_code=204)
@database_route
def remove(id: Id, runtime: ReadyRuntime) -> None:
    """Deletes a model and, within moments, its codes. 409 for the active model."""
    runtime.store.models.delete(activation.find(runtime.store, id).id)


async def _activate(find: Callable[[], StoredModel], runtime: Runtime) -> ActiveReply:
    """Polls, so that no thread is held while other processes load the codes."""
    admission = runtime.database_requests
    with admission.admit():
        model = await admission.run(find)
        deadline = activation.new_deadline()

        def attempt() -> str | None:
            return activation.attempt(runtime.store, model, deadline)

        while (before := await admission.run(attempt)) is None:
            await anyio.sleep(FEED_POLL_SECONDS)
        return ActiveReply(active=model.id, before=before)


def _add(files: dict[str, bytes], runtime: Runtime) -> str:
    """Raises ArtifactError, ModelError, Busy."""
    with artifacts.unpacked(files) as folder:
        id = trial.load(folder, runtime.options)
    runtime.store.models.add(id, files)
    return id


def _reply(id: str, runtime: Runtime) -> ModelRowReply:
    model = runtime.store.models.get(id)
    missing = 0 if model.complete else runtime.store.models.count_missing(model.number)
    return ModelRowReply.of(model, missing)
