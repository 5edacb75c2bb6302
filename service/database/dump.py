"""Exports the catalogue as JSON Lines and restores it into another database.

The first line names the format, the previously active model and the deleted models; the last line
holds the SHA-256 of all lines before. Between them come the models, with their files in base64, and
then the images in seq order, which decides ties, so that searches find the same. Originals are not
included; they are files already.
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
from service.database.engine import Database
from service.database.feed import append
from service.database.models import all_models, keep_files
from service.database.records import StoredModel
from service.database.schema import artifacts, codes, images, models, state
from service.database.state import MODEL_HISTORY, all_state
from service.database.store import Store
from service.errors import DumpError

FORMAT, VERSION = "gpq-dump", 1
DUMP_ROWS = 10_000  # images exported, or restored, at a time
KEPT = ("id", "sha256", "width", "height", "bytes", "created", "metadata")

Progress = Callable[[int], object]


def export(store: Store, path: Path, progress: Progress) -> int:
    """Writes all images and models of one moment to a .jsonl or .jsonl.gz file.

    Returns the number of images. The file appears only when it is complete. ``progress`` is called
    with the number of images written since the last call. Raises DumpError, OSError,
    SQLAlchemyError.
    """
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise DumpError(f"{path.name}: the name must end with .jsonl or .jsonl.gz")
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
    """Reads a dump into a database without images; restores everything or nothing.

    Returns the number of images. Services may use the database meanwhile. Raises DumpError,
    OSError, SQLAlchemyError.
    """
    with _read(path) as entries, store.database.transaction() as connection:
        head = next(entries)
        if connection.scalar(sa.select(images.c.id).limit(1)) is not None:
            raise DumpError("the database holds images already; restore into an empty one")
        for table in (codes, artifacts, models):
            connection.execute(sa.delete(table))
        _remember(connection, head.get("history", {}))  # dumps of earlier versions have no history
        numbers: dict[str, int] = {}
        batch: list[dict[str, Any]] = []
        for entry in entries:
            if "model" in entry:
                numbers[entry["model"]] = _insert_model(connection, entry)
                continue
            batch.append(entry)
            if len(batch) == DUMP_ROWS:
                _insert(store.database, connection, batch, numbers)
                progress(len(batch))
                batch = []
        _insert(store.database, connection, batch, numbers)
        progress(len(batch))
        stored = connection.scalar(sa.select(sa.func.count()).select_from(images)) or 0
        if stored != head["images"]:
            raise DumpError(f"{path} announces {head['images']} images but holds {stored}")
        store.database.notify(connection)
    return int(stored)


class _Lines:
    """Writes lines to a file and computes their digest."""

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
    """Opens a dump and yields its lines except the last; the last one is checked at the end."""
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
            raise DumpError(f"{path} is damaged, or not a dump: {error!r}") from error


def _checked(file: Any, path: Path) -> Iterator[dict[str, Any]]:
    digest = hashlib.sha256()
    entry: dict[str, Any] = {}
    for number, line in enumerate(file):
        if "sha256" in entry and "id" not in entry:
            raise DumpError(f"{path} is damaged: lines follow its checksum")
        entry = json.loads(line)
        if number == 0 and (entry.get("format"), entry.get("version")) != (FORMAT, VERSION):
            raise DumpError(f"{path} is not a {FORMAT} file of version {VERSION}")
        if entry.keys() == {"sha256"}:
            if entry["sha256"] != digest.hexdigest():
                raise DumpError(f"{path} is damaged: its checksum does not match")
            continue
        digest.update(line)
        yield entry
    if entry.keys() != {"sha256"}:
        raise DumpError(f"{path} is incomplete: its last line is missing")


def _history(connection: Connection) -> dict[str, str]:
    return {name: value for name, value in all_state(connection).items() if name in MODEL_HISTORY}


def _remember(connection: Connection, history: dict[str, str]) -> None:
    connection.execute(sa.delete(state).where(state.c.name.in_(MODEL_HISTORY)))
    if rows := [
        {"name": name, "value": history[name]} for name in MODEL_HISTORY if name in history
    ]:
        connection.execute(sa.insert(state), rows)


def _model(connection: Connection, row: StoredModel) -> dict[str, Any]:
    query = sa.select(artifacts.c.name, artifacts.c.content).where(artifacts.c.model == row.number)
    files = {name: b64encode(content).decode() for name, content in connection.execute(query)}
    return {
        "model": row.id, "active": row.active, "whole": row.complete, "added": row.added,
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
    keep_files(connection, number, {n: b64decode(c) for n, c in entry["files"].items()})
    return number


def _insert(
    database: Database,
    connection: Connection,
    batch: list[dict[str, Any]],
    numbers: dict[str, int],
) -> None:
    if not batch:
        return
    seqs = append(database, connection, [None] * len(batch))
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
