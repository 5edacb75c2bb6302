"""What is read of pictures and the feed: each answer is of one moment."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from service.database.engine import Database, now
from service.database.models import all_models
from service.database.records import Change, Changes, Mark, ModelRow, Resolved, Snapshot, active_of
from service.database.schema import codes, feed, images, models, state
from service.settings import FEED_PAGE, LOAD_ROWS, SEQS_IN_A_QUERY


class Reader:
    """Every method raises SQLAlchemyError where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, id: str) -> Row[Any] | None:
        """One picture's row."""
        with self.database.read() as connection:
            return connection.execute(sa.select(images).where(images.c.id == id)).one_or_none()

    def code(self, seq: int, model: str) -> bytes | None:
        """Of the picture that was put as ``seq``, by the model of that id."""
        query = sa.select(codes.c.code).join(models, models.c.number == codes.c.model)
        query = query.where(models.c.id == model, codes.c.seq == seq)
        with self.database.read() as connection:
            return connection.scalar(query)

    def page(self, after: int, limit: int) -> Sequence[Row[Any]]:
        """Pictures' rows in seq order, from the first past ``after``."""
        query = sa.select(images).where(images.c.seq > after).order_by(images.c.seq).limit(limit)
        with self.database.read() as connection:
            return connection.execute(query).all()

    def resolve(self, seqs: Iterable[int], after: int) -> Resolved:
        """The pictures whose current codes have ``seqs``, or were put in after feed number
        ``after``, and the changes since then, of one moment."""
        seqs = set(seqs)
        if len(seqs) <= SEQS_IN_A_QUERY and (unchanged := self._resolve_unchanged(seqs, after)):
            return unchanged
        with self.database.snapshot() as connection:
            rows = all_models(connection)
            page = _page_of_feed(connection, after, FEED_PAGE, rows)
            values = all_state(connection)
            removed = {change.removes for change in page}
            added = {change.seq for change in page if change.codes}
            wanted = sorted((added | seqs) - removed)
            query = sa.select(images.c.seq, images.c.id, images.c.metadata)
            found: dict[int, tuple[str, str | None]] = {}
            for first in range(0, len(wanted), SEQS_IN_A_QUERY):
                part = wanted[first : first + SEQS_IN_A_QUERY]
                stored = connection.execute(query.where(images.c.seq.in_(part)))
                found |= {row.seq: (row.id, row.metadata) for row in stored}
        whole = len(page) < FEED_PAGE and int(values.get("pruned", 0)) <= after
        return Resolved(found, page, whole, active_of(rows))

    def _resolve_unchanged(self, seqs: set[int], after: int) -> Resolved | None:
        """``resolve`` by one statement, in a quarter of the time; None where there are changes."""
        with self.database.statement() as connection:
            rows = connection.execute(RESOLVING, {"seqs": [*seqs]}).all()
        newest, pruned, model = rows[0][:3]
        if newest is not None and newest > after:
            return None
        found = {seq: (id, metadata) for *_, seq, id, metadata in rows if seq is not None}
        return Resolved(found, [], (pruned or 0) <= after, model)

    def changes_after(self, seq: int, limit: int = FEED_PAGE) -> Changes:
        """Feed rows after ``seq``, in order."""
        # Of one moment: codes that are gone were taken out by a change that is seen here too.
        with self.database.snapshot() as connection:
            rows = all_models(connection)
            page = _page_of_feed(connection, seq - 1, limit + 1, rows)
            values = all_state(connection)
        last = None
        if page and page[0].seq == seq:
            last = Mark(seq, page.pop(0).created)
        return Changes(page[:limit], last, int(values.get("pruned", 0)), rows)

    @contextmanager
    def snapshot(self, model: str) -> Iterator[Snapshot]:
        """All codes of one model, the feed's head and the models, of one moment."""
        with self.database.snapshot() as connection:
            head, rows = _head(connection), all_models(connection)
            created = connection.scalar(sa.select(feed.c.created).where(feed.c.seq == head))
            number = next((row.number for row in rows if row.id == model), 0)
            query = sa.select(codes.c.seq, codes.c.code).order_by(codes.c.seq)
            query = query.where(codes.c.model == sa.literal_column(str(number)))
            parts = self.database.stream(connection, query, LOAD_ROWS)
            yield Snapshot(Mark(head, created or 0.0), rows, parts)

    def head(self) -> int:
        """The newest feed number ever committed."""
        with self.database.read() as connection:
            return _head(connection)

    def lag(self, applied: int) -> tuple[int, float]:
        """The feed's head, and for how many seconds the oldest change past ``applied`` waits."""
        oldest = sa.select(now() - feed.c.created).where(feed.c.seq > applied)
        with self.database.read() as connection:
            head = _head(connection)
            waiting = connection.scalar(oldest.order_by(feed.c.seq).limit(1))
        return head, max(0.0, float(waiting or 0))

    def count(self) -> int:
        """Of all pictures."""
        with self.database.read() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(images)) or 0

    def counts(self, model: str) -> tuple[int, int, int]:
        """Pictures with a code of the model, distinct codes, and the most that share one."""
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
        return int(total), int(unique), int(largest)

    def ids_of(self, sha256: str) -> set[str]:
        """Of the pictures that have these bytes."""
        with self.database.read() as connection:
            query = sa.select(images.c.id).where(images.c.sha256 == sha256)
            return set(connection.scalars(query))

    def unchanged(self, ids: Sequence[str]) -> dict[str, tuple[str, str | None]]:
        """sha256 and metadata of those pictures that lack no code, by their ids."""
        query = sa.select(images.c.id, images.c.sha256, images.c.metadata)
        with self.database.read() as connection:
            if not all(row.whole for row in all_models(connection)):
                return {}
            rows = connection.execute(query.where(images.c.id.in_(ids)))
            return {row.id: (row.sha256, row.metadata) for row in rows}

    def originals_in_use(self, hashes: Sequence[str]) -> set[str]:
        """Those of ``hashes`` that some picture has as its bytes."""
        query = sa.select(images.c.sha256).where(images.c.sha256.in_(hashes))
        with self.database.read() as connection:
            return set(connection.scalars(query))


def _resolving() -> sa.Select[Any]:
    """What there is of some seqs beside the newest change, the newest pruned and the active
    model: at least one row."""
    pruned = sa.select(sa.cast(state.c.value, sa.BigInteger)).where(state.c.name == "pruned")
    active = sa.select(models.c.id).where(models.c.active).order_by(models.c.number).limit(1)
    moment = sa.select(
        sa.select(sa.func.max(feed.c.seq)).scalar_subquery().label("newest"),
        pruned.scalar_subquery().label("pruned"),
        active.scalar_subquery().label("model"),
    ).subquery()
    wanted = images.c.seq.in_(sa.bindparam("seqs", expanding=True))
    query = sa.select(moment, images.c.seq, images.c.id, images.c.metadata)
    return query.select_from(moment.outerjoin(images, wanted))


RESOLVING = _resolving()


def all_state(connection: Connection) -> dict[str, str]:
    rows = connection.execute(sa.select(state.c.name, state.c.value))
    return {row.name: row.value for row in rows}


def _page_of_feed(
    connection: Connection, after: int, limit: int, rows: tuple[ModelRow, ...]
) -> list[Change]:
    query = sa.select(feed.c.seq, feed.c.removes, feed.c.created).where(feed.c.seq > after)
    page = connection.execute(query.order_by(feed.c.seq).limit(limit)).all()
    if not page:
        return []
    ids = {row.number: row.id for row in rows}
    put_in = sa.select(codes.c.model, codes.c.seq, codes.c.code)
    between = codes.c.seq.between(page[0].seq, page[-1].seq)
    of_seq: dict[int, dict[str, bytes]] = {}
    for model, seq, code in connection.execute(put_in.where(codes.c.model.in_(ids), between)):
        of_seq.setdefault(seq, {})[ids[model]] = code
    return [Change(row.seq, row.removes, of_seq.get(row.seq, {}), row.created) for row in page]


def _head(connection: Connection) -> int:
    """The newest feed number ever committed, also when it is out of the feed again."""
    newest = sa.select(sa.func.max(feed.c.seq)).scalar_subquery()
    pruned = sa.select(sa.cast(state.c.value, sa.BigInteger)).where(state.c.name == "pruned")
    return int(
        connection.scalar(sa.select(sa.func.coalesce(newest, pruned.scalar_subquery(), 0))) or 0
    )
