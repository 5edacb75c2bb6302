"""Reads, appends and prunes the feed: one row for each put, delete and change of
metadata, in commit order."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.database.engine import SEQS_IN_A_QUERY, Database, now
from service.database.models import all_models
from service.database.records import (
    Change,
    Changes,
    Described,
    Mark,
    Resolved,
    Snapshot,
    StoredModel,
    active_of,
)
from service.database.schema import codes, feed, images, models
from service.database.state import PRUNED, all_state, pruned_seq, set_state

PAGE = 10_000  # changes read, or pruned, at a time
CODES_AT_A_TIME, METADATA_AT_A_TIME = 50_000, 2_000  # fetched for a snapshot


class FeedTable:
    """The feed table.

    Every method raises SQLAlchemyError if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def changes_after(self, seq: int, limit: int = PAGE) -> Changes:
        """Returns at most ``limit`` changes after ``seq``, in order, and the state around them."""
        # In one snapshot: if a code is missing, the change that deleted it is visible here too.
        with self.database.snapshot() as connection:
            known = all_models(connection)
            page = _page(connection, seq - 1, limit + 1, known)
            values = all_state(connection)
        last = None
        if page and page[0].seq == seq:
            last = Mark(seq, page.pop(0).created)
        return Changes(page[:limit], last, int(values.get(PRUNED, 0)), known)

    @contextmanager
    def snapshot(self, model: str) -> Iterator[Snapshot]:
        """Opens a snapshot of all codes of one model, the feed's head and the models."""
        with self.database.snapshot() as connection:
            head, known = head_of(connection), all_models(connection)
            created = connection.scalar(sa.select(feed.c.created).where(feed.c.seq == head))
            number = next((row.number for row in known if row.id == model), 0)
            query = sa.select(codes.c.seq, codes.c.code).order_by(codes.c.seq)
            query = query.where(codes.c.model == sa.literal_column(str(number)))
            parts = self.database.stream(connection, query, CODES_AT_A_TIME)
            yield Snapshot(Mark(head, created or 0.0), known, parts)

    @contextmanager
    def described(self) -> Iterator[Described]:
        """Opens a snapshot of the ids and the metadata of all images, and the feed's head."""
        with self.database.snapshot() as connection:
            query = sa.select(images.c.seq, images.c.id, images.c.metadata).order_by(images.c.seq)
            parts = self.database.stream(connection, query, METADATA_AT_A_TIME)
            yield Described(head_of(connection), parts)

    def resolve(self, seqs: Iterable[int], after: int) -> Resolved:
        """Returns the images behind ``seqs`` and those put after feed number ``after``, and the
        changes since then, all of one moment."""
        wanted = set(seqs)
        if len(wanted) <= SEQS_IN_A_QUERY and (found := self._resolve_unchanged(wanted, after)):
            return found
        with self.database.snapshot() as connection:
            known = all_models(connection)
            page = _page(connection, after, PAGE, known)
            values = all_state(connection)
            active = active_of(known)
            removed = {change.removes for change in page}
            added = {change.seq: change.codes for change in page if change.codes}
            described = {change.describes for change in page if change.describes} - added.keys()
            changed = (added.keys() | described | wanted) - removed
            stored = _ids_and_metadata(connection, sorted(changed))
            changed_codes = _codes(connection, known, active, sorted(described & stored.keys()))
        changed_codes |= {seq: each[str(active)] for seq, each in added.items() if seq in stored}
        complete = len(page) < PAGE and int(values.get(PRUNED, 0)) <= after
        return Resolved(stored, page, complete, active, changed_codes)

    def _resolve_unchanged(self, seqs: set[int], after: int) -> Resolved | None:
        """Resolves with one statement, in a quarter of the time; None if there are changes."""
        with self.database.statement() as connection:
            rows = connection.execute(RESOLVING, {"seqs": [*seqs]}).all()
        newest, pruned, model = rows[0][:3]
        if newest is not None and newest > after:
            return None
        stored = {seq: (id, metadata) for *_, seq, id, metadata in rows if seq is not None}
        return Resolved(stored, [], (pruned or 0) <= after, model, {})

    def head(self) -> int:
        """Returns the newest feed number ever committed."""
        with self.database.read() as connection:
            return head_of(connection)

    def lag(self, applied: int) -> tuple[int, float]:
        """Returns the feed's head, and the age in seconds of the oldest change past ``applied``."""
        oldest = sa.select(now() - feed.c.created).where(feed.c.seq > applied)
        with self.database.read() as connection:
            head = head_of(connection)
            waiting = connection.scalar(oldest.order_by(feed.c.seq).limit(1))
        return head, max(0.0, float(waiting or 0))

    def prune(self, seconds: float) -> int:
        """Deletes at most one page of changes older than ``seconds``; returns how many.

        A reader that missed them sees it in ``Changes.pruned``.
        """

        def prune(connection: Connection) -> int:
            page = sa.select(feed.c.seq, feed.c.created).order_by(feed.c.seq).limit(PAGE)
            limit = current_time(connection) - seconds
            # A clock that was set back leaves a young change before old ones; keep all from there.
            old = []
            for row in connection.execute(page):
                if row.created >= limit:
                    break
                old.append(row.seq)
            if old:
                connection.execute(sa.delete(feed).where(feed.c.seq <= old[-1]))
                set_state(connection, PRUNED, str(old[-1]))
            return len(old)

        return self.database.write(prune)


def append(database: Database, connection: Connection, removes: list[int | None]) -> list[int]:
    """Adds one change for each seq in ``removes`` and returns their feed numbers, in order."""
    if not removes:
        return []
    database.notify(connection)
    created = current_time(connection)
    inserted = sa.insert(feed).returning(feed.c.seq, sort_by_parameter_order=True)
    rows = [{"removes": removed, "created": created} for removed in removes]
    return list(connection.scalars(inserted, rows))


def current_time(connection: Connection) -> float:
    """Returns the seconds since the epoch by the database's clock."""
    return float(connection.scalars(sa.select(now())).one())


def _resolving() -> sa.Select[Any]:
    """Selects the newest change, the newest pruned one and the active model, with the images of
    some seqs beside them: at least one row."""
    active = sa.select(models.c.id).where(models.c.active).order_by(models.c.number).limit(1)
    moment = sa.select(
        sa.select(sa.func.max(feed.c.seq)).scalar_subquery().label("newest"),
        pruned_seq().scalar_subquery().label("pruned"),
        active.scalar_subquery().label("model"),
    ).subquery()
    wanted = images.c.seq.in_(sa.bindparam("seqs", expanding=True))
    query = sa.select(moment, images.c.seq, images.c.id, images.c.metadata)
    return query.select_from(moment.outerjoin(images, wanted))


RESOLVING = _resolving()


def _ids_and_metadata(connection: Connection, seqs: list[int]) -> dict[int, tuple[str, str | None]]:
    query = sa.select(images.c.seq, images.c.id, images.c.metadata)
    found: dict[int, tuple[str, str | None]] = {}
    for first in range(0, len(seqs), SEQS_IN_A_QUERY):
        part = images.c.seq.in_(seqs[first : first + SEQS_IN_A_QUERY])
        found |= {row.seq: (row.id, row.metadata) for row in connection.execute(query.where(part))}
    return found


def _codes(
    connection: Connection, known: tuple[StoredModel, ...], model: str | None, seqs: list[int]
) -> dict[int, bytes]:
    """Returns the codes of images under a model, by seq."""
    number = next((row.number for row in known if row.id == model), 0)
    query = sa.select(codes.c.seq, codes.c.code).where(codes.c.model == number)
    found: dict[int, bytes] = {}
    for first in range(0, len(seqs), SEQS_IN_A_QUERY):
        part = codes.c.seq.in_(seqs[first : first + SEQS_IN_A_QUERY])
        found |= {row.seq: row.code for row in connection.execute(query.where(part))}
    return found


def _page(
    connection: Connection, after: int, limit: int, known: tuple[StoredModel, ...]
) -> list[Change]:
    query = sa.select(feed.c.seq, feed.c.removes, feed.c.created, feed.c.describes)
    query = query.where(feed.c.seq > after)
    page = connection.execute(query.order_by(feed.c.seq).limit(limit)).all()
    if not page:
        return []
    ids = {row.number: row.id for row in known}
    added = sa.select(codes.c.model, codes.c.seq, codes.c.code)
    between = codes.c.seq.between(page[0].seq, page[-1].seq)
    by_seq: dict[int, dict[str, bytes]] = {}
    for model, seq, code in connection.execute(added.where(codes.c.model.in_(ids), between)):
        by_seq.setdefault(seq, {})[ids[model]] = code
    return [
        Change(row.seq, row.removes, by_seq.get(row.seq, {}), row.created, row.describes)
        for row in page
    ]


def head_of(connection: Connection) -> int:
    """Returns the newest feed number ever committed, even if it was pruned."""
    newest = sa.select(sa.func.max(feed.c.seq)).scalar_subquery()
    pruned = pruned_seq().scalar_subquery()
    return int(connection.scalar(sa.select(sa.func.coalesce(newest, pruned, 0))) or 0)
