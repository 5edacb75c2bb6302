"""Runs python -m service backup, export and restore: the catalogue in a file."""

import argparse
import os
from pathlib import Path

from tqdm import tqdm

from gpq.system.files import sync_folder
from service.database.dump import export, restore
from service.database.migrate import migrate
from service.database.store import Store
from service.errors import DumpError
from service.settings import Settings

ABOUT = {
    "export": "write images, codes and models to a .jsonl or .jsonl.gz, for another database",
    "restore": "read an exported file into a database without images",
    "backup": "copy a SQLite database that is in use",
}


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for name, about in ABOUT.items():
        commands.add_parser(name, help=about, description=about).add_argument("file", type=Path)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Returns the exit status. Raises DumpError, OSError, SQLAlchemyError."""
    store = Store(settings.database_url)
    try:
        if arguments.command == "backup":
            copy(store, arguments.file)
            print(f"{arguments.file}: {arguments.file.stat().st_size} bytes")
            return 0
        migrate(store.database)
        exporting = arguments.command == "export"
        with tqdm(
            unit="image", total=store.images.count() if exporting else None, disable=None
        ) as bar:
            count = (export if exporting else restore)(store, arguments.file, bar.update)
        direction = "to" if exporting else "from"
        print(f"{count} images {direction} {arguments.file}; originals are not included")
        return 0
    finally:
        store.close()


def copy(store: Store, path: Path) -> None:
    """Copies a SQLite database as it is at one moment. The file appears when it is complete.

    Raises DumpError for Postgres, or if the file exists.
    """
    if store.database.is_postgres:
        raise DumpError(
            "backup is for SQLite; for Postgres use pg_dump -Fc -f FILE DATABASE, and pg_restore"
        )
    if path.exists():
        raise DumpError(f"{path} exists; name a new file")
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    store.database.copy_to(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_folder(path.parent)
