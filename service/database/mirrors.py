"""Remembers which images came from which entries of mirrored sources."""

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.database.engine import SEQS_IN_A_QUERY, Database
from service.database.job_records import MirroredEntry
from service.database.schema import mirrored


class MirrorTable:
    """The mirrored table. A pass over a source gives its number, the time at which it began, to
    each entry that it sees; entries that keep a smaller number are gone from the source.

    Every method raises SQLAlchemyError if the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def known(self, source: str, ids: Sequence[str]) -> dict[str, MirroredEntry]:
        """Returns what is remembered of the entries that became these images, by id."""
        found: dict[str, MirroredEntry] = {}
        mine = _entries().where(mirrored.c.source == source)
        with self.database.read() as connection:
            for first in range(0, len(ids), SEQS_IN_A_QUERY):
                part = mirrored.c.id.in_(ids[first : first + SEQS_IN_A_QUERY])
                rows = connection.execute(mine.where(part))
                found |= {row.id: MirroredEntry(**row._mapping) for row in rows}
        return found

    def see(
        self, source: str, number: int, entries: Iterable[MirroredEntry], failed: Sequence[str]
    ) -> None:
        """Remembers entries that pass ``number`` has seen. ``failed``: the ids of entries that
        could not be used; what was stored of them before is not gone."""
        by_id = {each.id: each for each in entries}

        def see(connection: Connection) -> None:
            mine = mirrored.c.source == source
            these = mine & mirrored.c.id.in_([*by_id])
            # A later pass, of another process, may have seen them already.
            query = sa.select(mirrored.c.id, mirrored.c["pass"]).where(these)
            passes = {row.id: row[1] for row in connection.execute(query)}
            rows = [
                {"source": source, "id": each.id, "name": each.name, "sha256": each.sha256,
                 "stamp": each.stamp, "pass": max(number, passes.get(each.id, 0))}
                for each in by_id.values()
            ]  # fmt: skip
            connection.execute(sa.delete(mirrored).where(these))
            if rows:
                connection.execute(sa.insert(mirrored), rows)
            if failed:
                kept = sa.update(mirrored).where(mine, mirrored.c.id.in_(failed))
                kept = kept.where(mirrored.c["pass"] < number)
                connection.execute(kept.values({"pass": number}))

        self.database.write(see)

    def count(self, source: str) -> int:
        """Counts the entries of a source."""
        query = sa.select(sa.func.count()).select_from(mirrored).where(mirrored.c.source == source)
        with self.database.read() as connection:
            return connection.scalar(query) or 0

    def gone(self, source: str, number: int) -> list[MirroredEntry]:
        """Returns the entries that neither pass ``number`` nor a later one has seen."""
        query = _entries().where(mirrored.c.source == source, mirrored.c["pass"] < number)
        with self.database.read() as connection:
            return [MirroredEntry(**row._mapping) for row in connection.execute(query)]

    def below(self, source: str, folder: str) -> list[MirroredEntry]:
        """Returns the entries in a folder of the source."""
        inside = mirrored.c.name.startswith(f"{folder}/", autoescape=True)
        query = _entries().where(mirrored.c.source == source, inside)
        with self.database.read() as connection:
            return [MirroredEntry(**row._mapping) for row in connection.execute(query)]

    def forget(self, source: str, ids: Sequence[str]) -> None:
        """Forgets the entries that became these images."""

        def forget(connection: Connection) -> None:
            mine = sa.delete(mirrored).where(mirrored.c.source == source)
            for first in range(0, len(ids), SEQS_IN_A_QUERY):
                part = ids[first : first + SEQS_IN_A_QUERY]
                connection.execute(mine.where(mirrored.c.id.in_(part)))

        self.database.write(forget)

    def unclaimed(self, images: Mapping[str, str], source: str) -> dict[str, str]:
        """Returns those of some images (sha256 by id) that no entry of another source became."""
        ids, claimed = [*images], set[str]()
        others = mirrored.c.source != source
        with self.database.read() as connection:
            for first in range(0, len(ids), SEQS_IN_A_QUERY):
                part = mirrored.c.id.in_(ids[first : first + SEQS_IN_A_QUERY])
                claimed |= set(connection.scalars(sa.select(mirrored.c.id).where(part, others)))
        return {id: sha256 for id, sha256 in images.items() if id not in claimed}


def _entries() -> sa.Select[tuple[str, str, str, str]]:
    return sa.select(mirrored.c.name, mirrored.c.id, mirrored.c.sha256, mirrored.c.stamp)
