"""python -m service backup, export and restore: the catalogue in a file."""

import argparse
import os
from pathlib import Path

from tqdm import tqdm

from gpq.system.files import sync_folder
from service.database.dump import DumpError, export, restore
from service.database.migrate import migrate
from service.database.store import Store
from service.settings import Settings

ABOUT = {
    "export": "pictures, codes and models to a .jsonl or .jsonl.gz, for another database",
    "restore": "a file of export into a database without pictures",
    "backup": "a copy of a SQLite database that is in use",
}


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for name, about in ABOUT.items():
        commands.add_parser(name, help=about, description=about).add_argument("file", type=Path)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Exit status. Raises DumpError, OSError, SQLAlchemyError."""
    store = Store(settings.database_url)
    try:
        if arguments.command == "backup":
            copy(store, arguments.file)
            print(f"{arguments.file}: {arguments.file.stat().st_size} bytes")
            return 0
        migrate(store.database)
        work, verb = (export, "to") if arguments.command == "export" else (restore, "from")
        total = store.reader.count() if arguments.command == "export" else None
        with tqdm(unit="picture", total=total, disable=None) as bar:
            count = work(store, arguments.file, bar.update)
        print(f"{count} pictures {verb} {arguments.file}; the originals are where they were")
        return 0
    finally:
        store.close()


def copy(store: Store, path: Path) -> None:
    """Of one moment, while services read and write. The file is whole or not there.

    Raises DumpError for Postgres, or where the file is there.
    """
    if store.database.is_postgres:
        raise DumpError(
            "backup is for SQLite; for Postgres: pg_dump -Fc -f FILE DATABASE, and pg_restore"
        )
    if path.exists():
        raise DumpError(f"{path} is there already; name a new file")
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    store.database.copy_to(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_folder(path.parent)
