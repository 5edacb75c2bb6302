"""The catalogue as JSON Lines, from one database into another: pictures, codes, models.

The first line names the format, the model before the active one and those that were taken out;
the last one has the SHA-256 of all lines before. Between them stand the models, with their files
in base64, then the pictures in the order of storing, which is that of ties: so searches find the
same. Originals are not in it; they are files already.
"""

import gzip
import hashlib
import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gpq.system.files import replacing
from service.database.models import HISTORY, all_models
from service.database.reader import all_state
from service.database.records import ModelRow, Refused
from service.database.schema import artifacts, codes, feed, images, models, state
from service.database.store import Store
from service.settings import DUMP_ROWS

FORMAT, VERSION = "gpq-dump", 1
KEPT = ("id", "sha256", "width", "height", "bytes", "created", "metadata")

Progress = Callable[[int], object]


class DumpError(Refused):
    """A dump that cannot be written, or be restored; says why, and what to do."""


def export(store: Store, path: Path, progress: Progress) -> int:
    """All pictures and models of one moment to a .jsonl or .jsonl.gz; returns how many pictures.

    The file is whole or not there. progress is told of pictures, some at a time. Raises
    DumpError, OSError, SQLAlchemyError.
    """
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise DumpError(f"{path.name}: name it .jsonl or .jsonl.gz")
    with replacing(path, path.with_name(path.name + ".tmp")) as raw, _writing(path, raw) as file:
        lines = _Lines(file)
        with store.database.snapshot() as connection:
            count = connection.scalar(sa.select(sa.func.count()).select_from(images)) or 0
            about = {"format": FORMAT, "version": VERSION, "images": count, "created": _now()}
            lines.write({**about, "history": _history(connection)})
            rows = all_models(connection)
            for row in rows:
                lines.write(_model(connection, row))
            for page in _pages(connection, {row.number: row.id for row in rows}):
                for image in page:
                    lines.write(image)
                progress(len(page))
        lines.write({"sha256": lines.digest.hexdigest()})
    return int(count)


def restore(store: Store, path: Path, progress: Progress) -> int:
    """The pictures and models of a dump, into a database without pictures: all, or where
    anything is wrong, nothing. Returns how many pictures.

    Services over the database may run. Raises DumpError, OSError, SQLAlchemyError.
    """
    with _read(path) as entries, store.database.transaction() as connection:
        head = next(entries)
        if connection.scalar(sa.select(images.c.id).limit(1)) is not None:
            raise DumpError("the database has pictures already; restore into an empty one")
        for table in (codes, artifacts, models):
            connection.execute(sa.delete(table))
        _remember(connection, head.get("history", {}))  # dumps of earlier versions have none
        numbers: dict[str, int] = {}
        batch: list[dict[str, Any]] = []
        for entry in entries:
            if "model" in entry:
                numbers[entry["model"]] = _insert_model(connection, entry)
                continue
            batch.append(entry)
            if len(batch) == DUMP_ROWS:
                _insert(connection, batch, numbers)
                progress(len(batch))
                batch = []
        _insert(connection, batch, numbers)
        progress(len(batch))
        stored = connection.scalar(sa.select(sa.func.count()).select_from(images)) or 0
        if stored != head["images"]:
            raise DumpError(f"{path} names {head['images']} pictures and has {stored}")
        store.database.notify(connection)
    return int(stored)


class _Lines:
    """Lines that go to a file, and into a digest."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, value: dict[str, Any]) -> None:
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self.digest.update(line)
        self.file.write(line)


@contextmanager
def _writing(path: Path, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    if path.suffix != ".gz":
        yield raw
        return
    with gzip.GzipFile(path.stem, "wb", compresslevel=6, fileobj=raw, mtime=0) as file:
        yield file  # type: ignore[misc]


@contextmanager
def _read(path: Path) -> Iterator[Iterator[dict[str, Any]]]:
    """The lines of a dump but the last, which is checked when they are through."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        try:
            yield _checked(file, path)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            EOFError,
            gzip.BadGzipFile,
            zlib.error,
        ) as error:
            raise DumpError(f"{path} is damaged or no dump: {error!r}") from error


def _checked(file: Any, path: Path) -> Iterator[dict[str, Any]]:
    digest = hashlib.sha256()
    entry: dict[str, Any] = {}
    for number, line in enumerate(file):
        if "sha256" in entry and "id" not in entry:
            raise DumpError(f"{path}: there are lines after the last")
        entry = json.loads(line)
        if number == 0 and (entry.get("format"), entry.get("version")) != (FORMAT, VERSION):
            raise DumpError(f"{path} is no {FORMAT} of version {VERSION}")
        if entry.keys() == {"sha256"}:
            if entry["sha256"] != digest.hexdigest():
                raise DumpError(f"{path} is damaged: its checksum is another")
            continue
        digest.update(line)
        yield entry
    if entry.keys() != {"sha256"}:
        raise DumpError(f"{path} was cut: it has no last line")


def _history(connection: Connection) -> dict[str, str]:
    return {name: value for name, value in all_state(connection).items() if name in HISTORY}


def _remember(connection: Connection, history: dict[str, str]) -> None:
    connection.execute(sa.delete(state).where(state.c.name.in_(HISTORY)))
    if rows := [{"name": name, "value": history[name]} for name in HISTORY if name in history]:
        connection.execute(sa.insert(state), rows)


def _model(connection: Connection, row: ModelRow) -> dict[str, Any]:
    query = sa.select(artifacts.c.name, artifacts.c.content).where(artifacts.c.model == row.number)
    files = {name: b64encode(content).decode() for name, content in connection.execute(query)}
    return {
        "model": row.id, "active": row.active, "whole": row.whole, "added": row.added,
        "files": files,
    }  # fmt: skip


def _pages(connection: Connection, ids: dict[int, str]) -> Iterator[list[dict[str, Any]]]:
    query = sa.select(images).order_by(images.c.seq).limit(DUMP_ROWS)
    of_models = sa.select(codes.c.model, codes.c.seq, codes.c.code).where(codes.c.model.in_(ids))
    after = 0
    while rows := connection.execute(query.where(images.c.seq > after)).all():
        after = rows[-1].seq
        found: dict[int, dict[str, str]] = {}
        between = codes.c.seq.between(rows[0].seq, after)
        for model, seq, code in connection.execute(of_models.where(between)):
            found.setdefault(seq, {})[ids[model]] = code.hex()
        yield [
            {**{name: getattr(row, name) for name in KEPT}, "codes": found.get(row.seq, {})}
            for row in rows
        ]


def _insert_model(connection: Connection, entry: dict[str, Any]) -> int:
    values = {"id": entry["model"], **{key: entry[key] for key in ("active", "whole", "added")}}
    inserted = connection.execute(sa.insert(models).values(**values).returning(models.c.number))
    number = int(inserted.scalar_one())
    for name, content in entry["files"].items():
        row = {"model": number, "name": name, "content": b64decode(content)}
        connection.execute(sa.insert(artifacts).values(**row))
    return number


def _insert(connection: Connection, batch: list[dict[str, Any]], numbers: dict[str, int]) -> None:
    if not batch:
        return
    changes = sa.insert(feed).returning(feed.c.seq, sort_by_parameter_order=True)
    now = datetime.now(UTC).timestamp()
    seqs = list(connection.scalars(changes, [{"removes": None, "created": now} for _ in batch]))
    placed = list(zip(seqs, batch, strict=True))
    connection.execute(
        sa.insert(images),
        [{"seq": seq, **{name: entry[name] for name in KEPT}} for seq, entry in placed],
    )
    rows = [
        {"model": numbers[model], "seq": seq, "code": bytes.fromhex(code)}
        for seq, entry in placed
        for model, code in entry["codes"].items()
    ]
    if rows:
        connection.execute(sa.insert(codes), rows)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
