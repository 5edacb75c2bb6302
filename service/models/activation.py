"""From one active model to another, everywhere at once and with no request failing."""

import time

from service.database.records import ModelError, ModelRow, NoSuchModel
from service.database.store import Store
from service.settings import ACTIVATE_SECONDS, FEED_POLL_SECONDS


def find(store: Store, start: str) -> ModelRow:
    """The model whose id begins so. Raises NoSuchModel, and ModelError where there are more."""
    found = [row for row in store.models.all() if row.id.startswith(start)]
    if not found:
        raise NoSuchModel(f"no model begins with {start[:64]}; see the list of models")
    if len(found) > 1:
        raise ModelError(f"{len(found)} models begin with {start[:64]}; write more of the id")
    return found[0]


def before(store: Store) -> ModelRow:
    """The model that was active before. Raises ModelError."""
    previous = store.models.previous()
    if previous is None:
        raise ModelError("there is no model that was active before, or it was pruned")
    return find(store, previous)


def activate(store: Store, row: ModelRow) -> str:
    """When every live process has its codes. Returns the id of the model until now. Raises
    ModelError, and nothing was changed then."""
    deadline = give_up_at()
    while (until_now := attempt(store, row, deadline)) is None:
        time.sleep(FEED_POLL_SECONDS)
    return until_now


def give_up_at() -> float:
    return time.monotonic() + ACTIVATE_SECONDS


def attempt(store: Store, row: ModelRow, deadline: float) -> str | None:
    """``activate`` where every live process has the codes now, so that none has to refuse a
    search; else None, until the deadline."""
    # Pictures that lacked a code may have been put again, or deleted.
    lacking = _without(store, row.id) if store.models.settle(row.id) else []
    if not lacking:
        return store.models.activate(row.id)
    if time.monotonic() > deadline:
        raise ModelError(
            f"{', '.join(lacking)} has not loaded the codes of {row.id} within "
            f"{ACTIVATE_SECONDS} s: see its log; nothing was changed"
        )
    return None


def _without(store: Store, id: str) -> list[str]:
    return [replica.name for replica in store.replicas.alive() if id not in replica.models]
