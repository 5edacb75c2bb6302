"""python -m service models: what can be asked of the models that have codes."""

import argparse
from collections.abc import Callable
from pathlib import Path

from service.cli import jobs
from service.database.migrate import migrate
from service.database.records import ModelError
from service.database.store import Store
from service.models import activation
from service.settings import REINDEX_SHARE, Settings

ABOUT = {
    "list": "the models that have codes, and how many pictures lack one",
    "add": "keep codes of another model too: of new pictures at once, of stored ones by reindex",
    "reindex": "give every stored picture a code of the added models; goes on where it was stopped",
    "activate": "search by another model, everywhere at once, when every process has its codes",
    "rollback": "search by the model again that was active before",
    "prune": "take out all models but the active one; no rollback after it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    for name, about in ABOUT.items():
        action = actions.add_parser(name, help=about, description=about)
        if name == "add":
            action.add_argument("folder", type=Path, help="of the model artifact")
        if name == "activate":
            action.add_argument("id", help="of the model, or how it begins")
        if name == "reindex":
            about = f"of the time, at most, where searches leave it; default: {REINDEX_SHARE}"
            action.add_argument("--share", type=float, default=REINDEX_SHARE, help=about)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Exit status: 1 where pictures lack a code. Raises ModelError, GPQError, SQLAlchemyError."""
    store = Store(settings.database_url)
    try:
        migrate(store.database)
        actions: dict[str, Callable[[], int]] = {
            "list": lambda: _list(store),
            "add": lambda: _add(store, arguments.folder),
            "reindex": lambda: _reindex(store, settings, arguments.share),
            "activate": lambda: _activate(store, arguments.id),
            "rollback": lambda: _rollback(store),
            "prune": lambda: _prune(store),
        }
        return actions[arguments.action]()
    finally:
        store.close()


def _list(store: Store) -> int:
    rows = store.models.all()
    if not rows:
        print("there are no models yet: a service begins with GPQ_MODEL")
    for row in rows:
        state = "active" if row.active else "ready" if row.whole else "added"
        missing = "" if row.whole else f"  {store.models.count_missing(row.number)} without a code"
        print(f"{row.id}  {state:6}  {row.added}{missing}")
    return 0


def _add(store: Store, folder: Path) -> int:
    from gpq.model import artifact  # torch is slow to import: a rollback need not wait for it
    from service.models import artifacts

    folder = artifacts.find(folder)
    model = artifact.load(folder)
    store.models.add(model.id, artifacts.read(folder))
    print(f"added {model.id}; next: python -m service models reindex")
    return 0


def _reindex(store: Store, settings: Settings, share: float) -> int:
    if not 0 < share <= 1:
        raise ModelError(f"--share {share}: more than 0, at most 1")
    if all(row.whole for row in store.models.all()):
        print("every picture has a code of every model there is; nothing to do")
        return 0
    return jobs.at_it(store, settings, store.jobs.ask("reindex", "", by_service=False), share=share)


def _activate(store: Store, start: str) -> int:
    row = activation.find(store, start)
    _tell_active(row.id, activation.activate(store, row))
    return 0


def _rollback(store: Store) -> int:
    row = activation.before(store)
    _tell_active(row.id, activation.activate(store, row))
    return 0


def _tell_active(id: str, before: str) -> None:
    print(f"active: {id}" + (f"; before: {before}" if before not in ("", id) else ""))


def _prune(store: Store) -> int:
    for row in store.models.all():
        if not row.active:
            store.models.remove(row.id)
            print(f"took out {row.id}")
    store.models.sweep()
    return 0
