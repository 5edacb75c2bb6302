"""Reads and writes images, and their codes."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.database import copies, feed
from service.database.engine import SEQS_IN_A_QUERY, Database
from service.database.models import all_models, fill_codes, remove_codes
from service.database.records import CodeCounts, Keep, Put, PutOutcome, StoredImage, StoredModel
from service.database.schema import codes, images, models
from service.errors import ModelChanged

Existing = Mapping[str, StoredImage]  # by id


class ImageTable:
    """The images table and the codes of images. Writes are durable when they return.

    Every method raises SQLAlchemyError if the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def put(self, puts: Sequence[Put]) -> list[PutOutcome]:
        """Writes images in one transaction, in order; their ids must differ.

        An image with the same bytes keeps its codes and seq; only its metadata may change.
        Raises ModelChanged if the puts lack codes of a model, or have codes of others.
        """
        return self.database.write(lambda connection: self._put(connection, puts))

    def describe(self, id: str, metadata: str | None) -> bool:
        """Replaces the metadata of an image. Returns False if there is no such image."""
        update = sa.update(images).where(images.c.id == id).values(metadata=metadata)
        return self.database.write(lambda connection: connection.execute(update).rowcount == 1)

    def delete(self, id: str) -> int | None:
        """Deletes an image. Returns the feed number of the delete, or None if there is no image."""
        return self.database.write(lambda connection: self._delete(connection, id))

    def delete_unchanged(self, bytes_of: Mapping[str, str]) -> int:
        """Deletes images (sha256 by id) that still have these bytes. Returns how many."""
        return self.database.write(lambda connection: self._delete_unchanged(connection, bytes_of))

    def get(self, id: str) -> StoredImage | None:
        """Returns an image, or None."""
        with self.database.read() as connection:
            return _existing(connection, [id]).get(id)

    def page(self, after: int, limit: int) -> list[StoredImage]:
        """Returns at most ``limit`` images in seq order, from the first after seq ``after``."""
        query = sa.select(images).where(images.c.seq > after).order_by(images.c.seq).limit(limit)
        with self.database.read() as connection:
            return [StoredImage(**row._mapping) for row in connection.execute(query)]

    def code(self, seq: int, model: str) -> bytes | None:
        """Returns the code of the put ``seq`` under the model of that id, or None."""
        query = sa.select(codes.c.code).join(models, models.c.number == codes.c.model)
        query = query.where(models.c.id == model, codes.c.seq == seq)
        with self.database.read() as connection:
            return connection.scalar(query)

    def codes(self, seqs: Sequence[int], model: str) -> dict[int, bytes]:
        """Returns the codes of puts under the model of that id, by seq."""
        number = sa.select(models.c.number).where(models.c.id == model).scalar_subquery()
        query = sa.select(codes.c.seq, codes.c.code).where(codes.c.model == number)
        found: dict[int, bytes] = {}
        with self.database.read() as connection:
            for first in range(0, len(seqs), SEQS_IN_A_QUERY):
                part = codes.c.seq.in_(seqs[first : first + SEQS_IN_A_QUERY])
                found |= {row.seq: row.code for row in connection.execute(query.where(part))}
        return found

    def count(self) -> int:
        """Counts the images."""
        with self.database.read() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(images)) or 0

    def code_counts(self, model: str) -> CodeCounts:
        """Counts the codes of a model."""
        number = sa.select(models.c.number).where(models.c.id == model).scalar_subquery()
        ties = sa.select(sa.func.count().label("n")).where(codes.c.model == number)
        grouped = ties.group_by(codes.c.code).subquery()
        query = sa.select(
            sa.func.coalesce(sa.func.sum(grouped.c.n), 0),
            sa.func.count(),
            sa.func.coalesce(sa.func.max(grouped.c.n), 0),
        ).select_from(grouped)
        with self.database.read() as connection:
            total, unique, largest = connection.execute(query).one()
        return CodeCounts(int(total), int(unique), int(largest))

    def ids_of(self, sha256: str) -> set[str]:
        """Returns the ids of the images that have these bytes."""
        with self.database.read() as connection:
            query = sa.select(images.c.id).where(images.c.sha256 == sha256)
            return set(connection.scalars(query))

    def unchanged(self, ids: Sequence[str]) -> dict[str, tuple[str, str | None]]:
        """Returns (sha256, metadata) of images by id; empty while any model is incomplete."""
        query = sa.select(images.c.id, images.c.sha256, images.c.metadata)
        with self.database.read() as connection:
            if not all(model.complete for model in all_models(connection)):
                return {}
            rows = connection.execute(query.where(images.c.id.in_(ids)))
            return {row.id: (row.sha256, row.metadata) for row in rows}

    def originals_in_use(self, hashes: Sequence[str]) -> set[str]:
        """Returns the hashes that stored images use."""
        query = sa.select(images.c.sha256).where(images.c.sha256.in_(hashes))
        with self.database.read() as connection:
            return set(connection.scalars(query))

    def _put(self, connection: Connection, puts: Sequence[Put]) -> list[PutOutcome]:
        known = all_models(connection)
        _require_codes_of(known, puts)
        existing = _existing(connection, [put.id for put in puts])
        changed = [put for put in puts if not _has_same_bytes(existing.get(put.id), put)]
        replaced = [existing[put.id].seq if put.id in existing else None for put in changed]
        seqs = feed.append(self.database, connection, replaced)
        new_seqs = dict(zip([put.id for put in changed], seqs, strict=True))
        _replace_images(connection, changed, new_seqs, existing)
        remove_codes(connection, known, [seq for seq in replaced if seq is not None])
        _insert_codes(connection, known, changed, new_seqs)
        copies.remove(connection, [seq for seq in replaced if seq is not None])
        hashes = {new_seqs[put.id]: put.copy_hash for put in changed if put.copy_hash is not None}
        copies.insert(connection, hashes)
        kept = {
            existing[put.id].seq: put.copy_hash
            for put in puts
            if put.id not in new_seqs and put.copy_hash is not None
        }
        if kept:
            copies.fill(connection, kept)
        if not all(model.complete for model in known):
            unchanged = [put for put in puts if put.id not in new_seqs]
            fill_codes(connection, known, {existing[put.id].seq: put.codes for put in unchanged})
        return [_outcome(connection, put, existing.get(put.id), new_seqs) for put in puts]

    def _delete_unchanged(self, connection: Connection, wanted: Mapping[str, str]) -> int:
        found = _existing(connection, [*wanted])
        ours = [image for id, image in found.items() if image.sha256 == wanted[id]]
        seqs = [image.seq for image in sorted(ours, key=lambda image: image.seq)]
        if not seqs:
            return 0
        connection.execute(sa.delete(images).where(images.c.id.in_([image.id for image in ours])))
        remove_codes(connection, all_models(connection), seqs)
        copies.remove(connection, seqs)
        feed.append(self.database, connection, [*seqs])
        return len(seqs)

    def _delete(self, connection: Connection, id: str) -> int | None:
        removed = connection.execute(
            sa.delete(images).where(images.c.id == id).returning(images.c.seq)
        ).scalar_one_or_none()
        if removed is None:
            return None
        remove_codes(connection, all_models(connection), [removed])
        copies.remove(connection, [removed])
        return feed.append(self.database, connection, [removed])[0]


def _existing(connection: Connection, ids: Sequence[str]) -> dict[str, StoredImage]:
    rows = connection.execute(sa.select(images).where(images.c.id.in_(ids)))
    return {row.id: StoredImage(**row._mapping) for row in rows}


def _has_same_bytes(old: StoredImage | None, put: Put) -> bool:
    return old is not None and old.sha256 == put.sha256


def _require_codes_of(known: tuple[StoredModel, ...], puts: Sequence[Put]) -> None:
    """Raises ModelChanged unless every put has a code of each model and of no other."""
    wanted = {model.id for model in known}
    for put in puts:
        if put.codes.keys() != wanted:
            raise ModelChanged(
                f"the database keeps codes of models {sorted(wanted)}, not of {[*put.codes]}"
            )


def _replace_images(
    connection: Connection, puts: list[Put], seqs: dict[str, int], existing: Existing
) -> None:
    if not puts:
        return
    created = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    rows = []
    for put in puts:
        kept = existing[put.id].metadata if put.id in existing else None
        rows.append(
            {
                "id": put.id,
                "seq": seqs[put.id],
                "sha256": put.sha256,
                "width": put.width,
                "height": put.height,
                "bytes": put.bytes,
                "created": created,
                "metadata": kept if isinstance(put.metadata, Keep) else put.metadata,
            }
        )
    if replaced := [put.id for put in puts if put.id in existing]:
        connection.execute(sa.delete(images).where(images.c.id.in_(replaced)))
    connection.execute(sa.insert(images), rows)


def _insert_codes(
    connection: Connection, known: tuple[StoredModel, ...], puts: list[Put], seqs: dict[str, int]
) -> None:
    if not puts:
        return
    numbers = {model.id: model.number for model in known}
    rows = [
        {"model": numbers[model], "seq": seqs[put.id], "code": code}
        for put in puts
        for model, code in put.codes.items()
    ]
    connection.execute(sa.insert(codes), rows)


def _outcome(
    connection: Connection, put: Put, old: StoredImage | None, new_seqs: dict[str, int]
) -> PutOutcome:
    """Returns what happened to an image; writes its metadata if only those changed."""
    if old is None:
        return PutOutcome("created", new_seqs[put.id])
    if put.id in new_seqs:
        return PutOutcome("replaced", new_seqs[put.id])
    if isinstance(put.metadata, Keep) or put.metadata == old.metadata:
        return PutOutcome("unchanged", old.seq)
    update = sa.update(images).where(images.c.id == put.id)
    connection.execute(update.values(metadata=put.metadata))
    return PutOutcome("replaced", old.seq)
