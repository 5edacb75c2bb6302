"""python -m service models: what can be asked of the models that have codes."""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from service.migrate import migrate
from service.records import ModelError, ModelRow
from service.settings import ACTIVATE_SECONDS, FEED_POLL_SECONDS, Settings
from service.store import Store

NICENESS = 10  # of re-indexing beside a service on the same machine
SHOWN_FAILURES = 20
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
            action.add_argument(
                "--share", type=float, default=1.0, help="of the time, more than 0, at most 1"
            )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Exit status: 1 where pictures lack a code. Raises ModelError, GPQError, SQLAlchemyError."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    store = Store(settings.database_url)
    try:
        migrate(store.database)
        actions: dict[str, Callable[[], int]] = {
            "list": lambda: _list(store),
            "add": lambda: _add(store, arguments.folder),
            "reindex": lambda: _reindex(store, settings, arguments.share),
            "activate": lambda: _activate(store, _find(store, arguments.id)),
            "rollback": lambda: _rollback(store),
            "prune": lambda: _prune(store),
        }
        return actions[arguments.action]()
    finally:
        store.close()


def _list(store: Store) -> int:
    for row in store.models.all():
        state = "active" if row.active else "ready" if row.whole else "added"
        missing = "" if row.whole else f"  {store.models.count_missing(row.number)} without a code"
        print(f"{row.id}  {state:6}  {row.added}{missing}")
    return 0


def _add(store: Store, folder: Path) -> int:
    from gpq import artifact  # torch is slow to import: a rollback need not wait for it
    from service import artifacts

    model = artifact.load(folder)
    store.models.add(model.id, artifacts.read(folder))
    print(f"added {model.id}; next: python -m service models reindex")
    return 0


def _reindex(store: Store, settings: Settings, share: float) -> int:
    if not 0 < share <= 1:
        raise ModelError(f"--share {share}: more than 0, at most 1")
    from gpq import device  # as above
    from gpq.decode import limit_decoding
    from service import artifacts
    from service.encoder import Encoder
    from service.originals import open_originals
    from service.reindex import Reindex

    rows = [row for row in store.models.all() if not row.whole]
    if not rows:
        print("every picture has a code of every model; nothing to do")
        return 0
    os.nice(NICENESS)
    limit_decoding(settings.max_pixels)
    originals = open_originals(settings.image_store)
    encoder = Encoder(settings.max_pixels, settings.decode_threads)
    job = Reindex(store, encoder, originals, share)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: job.stop())
    failed = 0
    for row in rows:
        model = artifacts.load(store.models.files(row.id), device.pick(settings.device))
        missing = store.models.count_missing(row.number)
        with tqdm(total=missing, desc=row.id[:12], unit="picture") as bar:
            outcome = job.run(row, model, bar.update)
        _tell_failures(outcome.failed)
        failed += store.models.count_missing(row.number)
        print(f"{outcome.done} pictures got a code of {row.id}")
    if failed:
        print(
            f"{failed} pictures have no code yet: run it again, or post or delete those above",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _tell_failures(failed: dict[str, str]) -> None:
    for id, reason in list(failed.items())[:SHOWN_FAILURES]:
        print(f"{id}: {reason}", file=sys.stderr)
    if len(failed) > SHOWN_FAILURES:
        print(f"… and {len(failed) - SHOWN_FAILURES} more", file=sys.stderr)


def _activate(store: Store, row: ModelRow) -> int:
    """When every live process has its codes, so that none has to refuse a search."""
    deadline = time.monotonic() + ACTIVATE_SECONDS
    while row.whole and (lacking := _without(store, row.id)):
        if time.monotonic() > deadline:
            raise ModelError(
                f"{', '.join(lacking)} has not loaded the codes of {row.id} within "
                f"{ACTIVATE_SECONDS} s: see its log; nothing was changed"
            )
        time.sleep(FEED_POLL_SECONDS)
    before = store.models.activate(row.id)
    print(f"active: {row.id}" + (f"; before: {before}" if before not in ("", row.id) else ""))
    return 0


def _without(store: Store, id: str) -> list[str]:
    return [replica.name for replica in store.replicas.alive() if id not in replica.models]


def _rollback(store: Store) -> int:
    previous = store.models.previous()
    if previous is None:
        raise ModelError("there is no model that was active before, or it was pruned")
    return _activate(store, _find(store, previous))


def _prune(store: Store) -> int:
    for row in store.models.all():
        if not row.active:
            store.models.remove(row.id)
            print(f"took out {row.id}")
    store.models.sweep()
    return 0


def _find(store: Store, start: str) -> ModelRow:
    found = [row for row in store.models.all() if row.id.startswith(start)]
    if len(found) != 1:
        raise ModelError(f"{len(found)} models begin with {start}; see models list")
    return found[0]
