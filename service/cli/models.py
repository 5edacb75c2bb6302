"""Runs python -m service models: lists, adds, re-indexes, activates and deletes models."""

import argparse
from collections.abc import Callable
from pathlib import Path

from service.cli import jobs
from service.database.migrate import migrate
from service.database.store import Store
from service.errors import ModelError
from service.jobs.throttle import DEFAULT_SHARE
from service.models import activation
from service.settings import Settings

ABOUT = {
    "list": "list the models that have codes, and how many images lack one",
    "add": "add a model: new images get a code of it at once, stored ones by reindex",
    "save": "write the files of a model into a new folder",
    "reindex": "give every stored image a code of the added models; continues if interrupted",
    "activate": "search with another model, in all processes at once, when all have its codes",
    "rollback": "search with the model that was active before",
    "prune": "delete all models except the active one; no rollback is possible then",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    for name, about in ABOUT.items():
        action = actions.add_parser(name, help=about, description=about)
        if name == "add":
            action.add_argument("folder", type=Path, help="folder of the model artifact")
        if name == "save":
            action.add_argument("id", help="id of the model, or its first digits")
            action.add_argument("folder", type=Path, help="new folder for the model artifact")
        if name == "activate":
            action.add_argument("id", help="id of the model, or its first digits")
        if name == "reindex":
            about = (
                f"largest share of the time to work while searches run; default: {DEFAULT_SHARE}"
            )
            action.add_argument("--share", type=float, default=DEFAULT_SHARE, help=about)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Returns the exit status: 1 if images lack a code.

    Raises ServiceError, GPQError, SQLAlchemyError.
    """
    store = Store(settings.database_url)
    try:
        migrate(store.database)
        actions: dict[str, Callable[[], int]] = {
            "list": lambda: _list(store),
            "add": lambda: _add(store, settings, arguments.folder),
            "save": lambda: _save(store, arguments.id, arguments.folder),
            "reindex": lambda: _reindex(store, settings, arguments.share),
            "activate": lambda: _activate(store, arguments.id),
            "rollback": lambda: _rollback(store),
            "prune": lambda: _prune(store),
        }
        return actions[arguments.action]()
    finally:
        store.close()


def _list(store: Store) -> int:
    models = store.models.all()
    if not models:
        print("there are no models yet; a service adds GPQ_MODEL when it starts")
    for model in models:
        state = "active" if model.active else "ready" if model.complete else "added"
        lacking = 0 if model.complete else store.models.count_missing(model.number)
        missing = "" if model.complete else f"  {lacking} images without a code"
        print(f"{model.id}  {state:6}  {model.added}{missing}")
    return 0


def _add(store: Store, settings: Settings, folder: Path) -> int:
    from gpq.engine import engines  # loads the engines, which other commands don't need
    from service.models import artifacts, trial

    folder = artifacts.find(folder)
    options = engines.Options(settings.engine, settings.precision)
    id = trial.load(folder, options)
    if store.models.add(id, artifacts.read(folder)):
        print(f"added {id}; next: python -m service models reindex")
    else:
        print(f"added the graph of {id}; it needs no reindex")
    return 0


def _save(store: Store, prefix: str, folder: Path) -> int:
    from service.models import artifacts

    id = activation.find(store, prefix).id
    files = store.models.files(id)
    if not files:
        raise ModelError(f"the database has codes of model {id}, but not its files")
    if folder.exists():
        raise ModelError(f"{folder} exists already; name a new folder")
    artifacts.write(files, folder)
    print(f"wrote model {id} to {folder}")
    return 0


def _reindex(store: Store, settings: Settings, share: float) -> int:
    if not 0 < share <= 1:
        raise ModelError(f"--share {share}: must be more than 0 and at most 1")
    if all(model.complete for model in store.models.all()):
        print("every image has a code of every model; nothing to do")
        return 0
    number = store.jobs.request("reindex", "", by_service=False)
    return jobs.run_job(store, settings, number, share=share)


def _activate(store: Store, prefix: str) -> int:
    model = activation.find(store, prefix)
    _print_active(model.id, activation.activate(store, model))
    return 0


def _rollback(store: Store) -> int:
    model = activation.previous(store)
    _print_active(model.id, activation.activate(store, model))
    return 0


def _print_active(id: str, before: str) -> None:
    print(f"active: {id}" + (f"; before: {before}" if before not in ("", id) else ""))


def _prune(store: Store) -> int:
    for model in store.models.all():
        if not model.active:
            store.models.delete(model.id)
            print(f"deleted {model.id}")
    store.models.sweep()
    return 0
