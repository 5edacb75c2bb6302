"""Reads and writes perceptual hashes of images, and groups of copies."""

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.database.copy_records import CopyCounts, CopyGroup, CopyMember, CopyRow
from service.database.engine import SEQS_IN_A_QUERY, Database
from service.database.records import CopyHash, MissingCode, StoredImage
from service.database.schema import copy_groups, copy_hashes, images
from service.database.state import COPY_GROUPS_JOB, all_state, set_state

LEAST_QUALITY = 50  # of a hash that says something; Meta's recommendation for PDQ
UNREADABLE = CopyHash(b"", -1)
SHOWN_MEMBERS = 100  # of a group
ROWS_WRITTEN = 10_000  # in one transaction


class CopyTable:
    """The tables of perceptual hashes and of groups of copies.

    Every method raises SQLAlchemyError if the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def since(self, number: int, limit: int) -> list[CopyRow]:
        """Returns at most ``limit`` hashes from a number on, in order.

        Numbers are assigned in commit order, as those of the feed, so none is missed.
        """
        query = sa.select(copy_hashes).where(copy_hashes.c.number >= number)
        query = query.order_by(copy_hashes.c.number).limit(limit)
        with self.database.read() as connection:
            return [
                CopyRow(row.number, row.seq, row.hash if row.quality >= LEAST_QUALITY else None)
                for row in connection.execute(query)
            ]

    def newest(self) -> int:
        """Returns the largest number ever given, even if its hash was deleted."""
        if self.database.is_postgres:
            query = sa.text("SELECT last_value FROM copy_hashes_number_seq")
        else:
            query = sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'copy_hashes'")
        with self.database.read() as connection:
            return int(connection.scalar(query) or 0)

    def images(self, numbers: Iterable[int]) -> dict[int, StoredImage]:
        """Returns the stored images behind the numbers of hashes."""
        wanted = sorted(set(numbers))
        query = sa.select(copy_hashes.c.number, images).join(
            images, images.c.seq == copy_hashes.c.seq
        )
        found: dict[int, StoredImage] = {}
        with self.database.snapshot() as connection:
            for first in range(0, len(wanted), SEQS_IN_A_QUERY):
                part = copy_hashes.c.number.in_(wanted[first : first + SEQS_IN_A_QUERY])
                for number, *columns in connection.execute(query.where(part)):
                    found[number] = StoredImage(*columns)
        return found

    def of_image(self, id: str) -> CopyHash | None:
        """Returns the hash of an image, if it is known and says something."""
        query = sa.select(copy_hashes.c.hash, copy_hashes.c.quality)
        query = query.join(images, images.c.seq == copy_hashes.c.seq).where(images.c.id == id)
        with self.database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None or row.quality < 0 else CopyHash(row.hash, row.quality)

    def retry(self) -> None:
        """Forgets that hashes could not be computed, so that it is tried again."""
        unreadable = copy_hashes.c.quality < 0
        self.database.write(
            lambda connection: connection.execute(sa.delete(copy_hashes).where(unreadable))
        )

    def missing(self, after: int, limit: int) -> list[MissingCode]:
        """Returns at most ``limit`` images after seq ``after`` that have no row, in order."""
        known = sa.exists().where(copy_hashes.c.seq == images.c.seq)
        query = sa.select(images.c.seq, images.c.id, images.c.sha256)
        query = query.where(images.c.seq > after, ~known).order_by(images.c.seq).limit(limit)
        with self.database.read() as connection:
            return [MissingCode(**row._mapping) for row in connection.execute(query)]

    def fill(self, hashes: Mapping[int, CopyHash]) -> None:
        """Writes the hashes of stored images by seq, unless they are known."""

        self.database.write(lambda connection: fill(connection, hashes))

    def counts(self) -> CopyCounts:
        """Counts the images by what is known of their hashes."""
        quality = copy_hashes.c.quality
        rows = sa.select(
            sa.func.count().filter(quality >= LEAST_QUALITY),
            sa.func.count().filter(quality.between(0, LEAST_QUALITY - 1)),
            sa.func.count().filter(quality < 0),
        ).select_from(copy_hashes.join(images, images.c.seq == copy_hashes.c.seq))
        with self.database.snapshot() as connection:
            hashed, plain, unreadable = connection.execute(rows).one()
            total = connection.scalar(sa.select(sa.func.count()).select_from(images)) or 0
        return CopyCounts(hashed, plain, unreadable, total - hashed - plain - unreadable)

    def sweep(self) -> None:
        """Deletes the hashes of images that processes of the version before deleted."""
        stored = sa.exists().where(images.c.seq == copy_hashes.c.seq)
        gone = sa.select(copy_hashes.c.number).where(~stored)

        def sweep(connection: Connection) -> None:
            these = gone.limit(ROWS_WRITTEN)
            connection.execute(sa.delete(copy_hashes).where(copy_hashes.c.number.in_(these)))

        with self.database.read() as connection:
            found = connection.scalar(gone.limit(1)) is not None
        if found:
            self.database.write(sweep)

    def keep_groups(self, job: int, rows: Sequence[tuple[int, int]]) -> None:
        """Replaces the groups of copies. ``rows``: (first, seq) of each member."""
        values = [{"job": job, "first": first, "seq": seq} for first, seq in rows]
        self.database.write(lambda connection: _clear(connection, copy_groups.c.job == job))
        for first in range(0, len(values), ROWS_WRITTEN):
            part = values[first : first + ROWS_WRITTEN]

            def add(connection: Connection, part: list[dict[str, int]] = part) -> None:
                connection.execute(sa.insert(copy_groups), part)

            self.database.write(add)

        def finish(connection: Connection) -> None:
            set_state(connection, COPY_GROUPS_JOB, str(job))
            _clear(connection, copy_groups.c.job != job)

        self.database.write(finish)

    def groups(
        self, after: int, limit: int, prefix: str = ""
    ) -> tuple[int | None, list[CopyGroup]]:
        """Returns the job that found the groups, and at most ``limit`` groups after the one of
        seq ``after``. ``prefix``: of the ids of members; groups of fewer than two are left out."""
        joined = copy_groups.join(images, images.c.seq == copy_groups.c.seq).join(
            copy_hashes, copy_hashes.c.seq == copy_groups.c.seq
        )
        with self.database.snapshot() as connection:
            job = all_state(connection).get(COPY_GROUPS_JOB)
            if job is None:
                return None, []
            here = (copy_groups.c.job == int(job)) & (copy_groups.c.first > after)
            if prefix:
                here &= sa.func.substr(images.c.id, 1, len(prefix)) == prefix
            size = sa.func.count()
            sizes = sa.select(copy_groups.c.first, size).select_from(joined).where(here)
            sizes = sizes.group_by(copy_groups.c.first).having(size > 1)
            found = connection.execute(sizes.order_by(copy_groups.c.first).limit(limit)).all()
            return int(job), [
                CopyGroup(first, count, _members(connection, int(job), first, prefix))
                for first, count in found
            ]


def insert(connection: Connection, hashes: Mapping[int, CopyHash]) -> None:
    """Writes hashes by seq. The caller holds the write lock, as every write does."""
    rows = [
        {"seq": seq, "hash": found.hash, "quality": found.quality} for seq, found in hashes.items()
    ]
    if rows:
        connection.execute(sa.insert(copy_hashes), rows)


def fill(connection: Connection, hashes: Mapping[int, CopyHash]) -> None:
    """Writes the hashes of stored images by seq, unless they are known."""
    these = copy_hashes.c.seq.in_(hashes)
    connection.execute(sa.delete(copy_hashes).where(these, copy_hashes.c.quality < 0))
    known = sa.select(copy_hashes.c.seq).where(these)
    stored = sa.select(images.c.seq).where(images.c.seq.in_(hashes))
    new = set(connection.scalars(stored)).difference(connection.scalars(known))
    insert(connection, {seq: hashes[seq] for seq in sorted(new)})


def remove(connection: Connection, seqs: Sequence[int]) -> None:
    """Deletes the hashes of images."""
    for first in range(0, len(seqs), SEQS_IN_A_QUERY):
        part = copy_hashes.c.seq.in_(seqs[first : first + SEQS_IN_A_QUERY])
        connection.execute(sa.delete(copy_hashes).where(part))


def _clear(connection: Connection, these: sa.ColumnElement[bool]) -> None:
    connection.execute(sa.delete(copy_groups).where(these))


def _members(connection: Connection, job: int, first: int, prefix: str) -> list[CopyMember]:
    query = sa.select(copy_hashes.c.hash, images)
    query = query.select_from(
        copy_groups.join(images, images.c.seq == copy_groups.c.seq).join(
            copy_hashes, copy_hashes.c.seq == copy_groups.c.seq
        )
    )
    query = query.where(copy_groups.c.job == job, copy_groups.c.first == first)
    if prefix:
        query = query.where(sa.func.substr(images.c.id, 1, len(prefix)) == prefix)
    rows = connection.execute(query.order_by(copy_groups.c.seq).limit(SHOWN_MEMBERS))
    return [CopyMember(StoredImage(*columns), hash) for hash, *columns in rows]
