"""Changes the active model, for all processes at once, without a failing request."""

import time

from service.database.records import StoredModel
from service.database.store import Store
from service.errors import ModelError, NoSuchModel
from service.settings import FEED_POLL_SECONDS

ACTIVATE_SECONDS = 60  # how long an activation waits for all processes to load the model's codes


def find(store: Store, prefix: str) -> StoredModel:
    """Returns the model whose id begins with ``prefix``.

    Raises NoSuchModel, or ModelError if several ids begin so.
    """
    found = [model for model in store.models.all() if model.id.startswith(prefix)]
    if not found:
        raise NoSuchModel(f"no model id begins with {prefix[:64]}; see the list of models")
    if len(found) > 1:
        raise ModelError(f"{len(found)} models begin with {prefix[:64]}; give more of the id")
    return found[0]


def previous(store: Store) -> StoredModel:
    """Returns the previously active model. Raises ModelError if there is none."""
    id = store.models.previous()
    if id is None:
        raise ModelError("no model was active before, or it was deleted")
    return find(store, id)


def activate(store: Store, model: StoredModel) -> str:
    """Activates a model as soon as every live process has its codes.

    Returns the id of the previously active model. Raises ModelError; nothing has changed then.
    """
    deadline = new_deadline()
    while (before := attempt(store, model, deadline)) is None:
        time.sleep(FEED_POLL_SECONDS)
    return before


def new_deadline() -> float:
    """Returns the time at which an activation that starts now gives up."""
    return time.monotonic() + ACTIVATE_SECONDS


def attempt(store: Store, model: StoredModel, deadline: float) -> str | None:
    """Activates a model if every live process has its codes, so that none refuses a search.

    Returns the id of the previously active model, or None if a process must load the codes first.
    Raises ModelError after the deadline.
    """
    # Images that lacked a code may have been replaced or deleted since.
    lacking = _processes_without(store, model.id) if store.models.complete(model.id) else []
    if not lacking:
        return store.models.activate(model.id)
    if time.monotonic() > deadline:
        raise ModelError(
            f"{', '.join(lacking)} has not loaded the codes of {model.id} within "
            f"{ACTIVATE_SECONDS} s; see its log. Nothing was changed"
        )
    return None


def _processes_without(store: Store, id: str) -> list[str]:
    return [replica.name for replica in store.replicas.alive() if id not in replica.models]
