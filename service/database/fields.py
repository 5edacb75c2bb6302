"""Reads and writes filter fields: fields of the metadata whose values the database keeps in order.

The values follow the feed, in pages, a moment behind the images.
"""

from collections.abc import Callable, Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.database.engine import Database
from service.database.feed import head_of
from service.database.records import REMOVED, Bound, Candidates, FieldValue, FilterField
from service.database.schema import feed, filter_fields, filter_values, images
from service.database.state import FIELDS_SEQ, PRUNED, all_state, set_state
from service.errors import Refused

MOST_FIELDS = 16
PAGE = 200  # images, or changes, whose values are written in one transaction
MOST_VALUES = 16  # of one field of one image; with more, the image counts as within every bound
REMOVED_NAME = "."  # and a number: no field is called so
TEXT = 200  # characters of a string that are kept
LAST = "\U0010ffff"  # the largest code point

# Of the names of fields, and metadata as text.
ValuesOf = Callable[[Sequence[str], str | None], list[list[FieldValue]]]


class FieldTable:
    """The tables of filter fields.

    Every method raises SQLAlchemyError if the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def all(self) -> list[FilterField]:
        """Returns the fields in the order of their names."""
        with self.database.read() as connection:
            return [field for field in _fields(connection) if not field.removed]

    def add(self, name: str) -> None:
        """Adds a field; its values come later. Raises Refused if there are MOST_FIELDS."""

        def add(connection: Connection) -> None:
            known = [field for field in _fields(connection) if not field.removed]
            if name in [field.name for field in known]:
                return
            if len(known) == MOST_FIELDS:
                raise Refused(f"there are {MOST_FIELDS} filter fields already: remove one first")
            if not known:
                set_state(connection, FIELDS_SEQ, str(head_of(connection)))
            connection.execute(sa.insert(filter_fields).values(name=name, filled=0))

        self.database.write(add)

    def remove(self, name: str) -> bool:
        """Removes a field; its values go later. Returns False if there is none of that name."""
        update = sa.update(filter_fields).where(filter_fields.c.name == name)
        number = sa.cast(filter_fields.c.number, sa.Text)
        update = update.values(filled=REMOVED, name=sa.literal(REMOVED_NAME) + number)
        return self.database.write(lambda connection: connection.execute(update).rowcount == 1)

    def advance(self, values_of: ValuesOf) -> bool:
        """Applies the next changes, and fills new fields, by one page; returns whether more may
        follow. ``values_of``: returns the values of a field in metadata."""
        with self.database.read() as connection:
            fields = _fields(connection)
            behind = int(all_state(connection).get(FIELDS_SEQ, 0)) != head_of(connection)
        if not fields or (not behind and all(field.complete for field in fields)):
            return False
        return self.database.write(lambda connection: _advance(connection, values_of))

    def candidates(self, bound: Bound, most: int) -> Candidates | None:
        """Returns the images whose values are within a bound, at least, all of one moment.

        None if the field has no values yet, or more than ``most`` images are within the bound.
        """
        with self.database.snapshot() as connection:
            number = _complete(connection, bound.field)
            if number is None:
                return None
            one = filter_values.c.field
            inside = sa.select(filter_values.c.seq).where(one == number, _within(bound))
            within = inside.union_all(sa.select(filter_values.c.seq).where(one == -number))
            counted = sa.select(sa.func.count()).select_from(within.limit(most + 1).subquery())
            if (connection.scalar(counted) or 0) > most:
                return None
            query = sa.select(images.c.seq, images.c.id, images.c.metadata)
            rows = connection.execute(query.where(images.c.seq.in_(within)).order_by(images.c.seq))
            state = all_state(connection)
            seq = int(state.get(FIELDS_SEQ, 0))
            if seq < int(state.get(PRUNED, 0)):
                return None
            return Candidates(seq, head_of(connection), [tuple(row) for row in rows])


def kept_text(text: str) -> str:
    """Returns the beginning of a string that is kept. Equal and smaller strings keep theirs."""
    return text[:TEXT].partition("\0")[0]  # Postgres cannot store NUL


def _fields(connection: Connection) -> list[FilterField]:
    rows = connection.execute(sa.select(filter_fields).order_by(filter_fields.c.name))
    return [FilterField(row.number, row.name, row.filled) for row in rows]


def _complete(connection: Connection, name: str) -> int | None:
    query = sa.select(filter_fields.c.number).where(filter_fields.c.name == name)
    return connection.scalar(query.where(filter_fields.c.filled.is_(None)))


def _within(bound: Bound) -> sa.ColumnElement[bool]:
    column = filter_values.c[bound.kind]
    if bound.equal is not None:
        return column.in_([_kept(value) for value in bound.equal])
    parts = []
    if bound.low is not None:
        parts.append(column >= _kept(bound.low))
    if bound.high is not None:
        parts.append(column <= _kept(bound.high))
    if bound.prefix is not None:
        begin = kept_text(bound.prefix)
        parts += [column >= begin, column <= begin + LAST * TEXT]
    return sa.and_(*parts)


def _kept(value: float | str) -> float | str:
    return kept_text(value) if isinstance(value, str) else value


def _advance(connection: Connection, values_of: ValuesOf) -> bool:
    kept = [field for field in _fields(connection) if not field.removed]
    if kept and _follow(connection, kept, values_of):
        return True
    for field in _fields(connection):
        if field.removed:
            _clear(connection, field)
            return True
        if field.filled is not None:
            _fill(connection, field, field.filled, values_of)
            return True
    return False


def _clear(connection: Connection, field: FilterField) -> None:
    """Deletes some values of a removed field; at the end the field."""
    own = filter_values.c.field.in_((field.number, -field.number))
    seqs = list(connection.scalars(sa.select(filter_values.c.seq).where(own).limit(PAGE)))
    connection.execute(sa.delete(filter_values).where(own, filter_values.c.seq.in_(seqs)))
    if not seqs:
        this = filter_fields.c.number == field.number
        connection.execute(sa.delete(filter_fields).where(this))


def _follow(connection: Connection, fields: list[FilterField], values_of: ValuesOf) -> bool:
    """Applies the next changes of the feed; returns whether there are more."""
    state, head = all_state(connection), head_of(connection)
    after = int(state.get(FIELDS_SEQ, 0))
    if int(state.get(PRUNED, 0)) > after or after > head:  # changes were missed: begin again
        again = sa.update(filter_fields).where(filter_fields.c.filled.is_distinct_from(REMOVED))
        connection.execute(again.values(filled=0))
        set_state(connection, FIELDS_SEQ, str(head))
        return True
    query = sa.select(feed.c.seq, feed.c.removes, feed.c.describes).where(feed.c.seq > after)
    page = connection.execute(query.order_by(feed.c.seq).limit(PAGE)).all()
    if not page:
        return False
    seqs = {seq for row in page for seq in row if seq is not None}
    _write(connection, fields, seqs, values_of)
    set_state(connection, FIELDS_SEQ, str(page[-1].seq))
    return len(page) == PAGE


def _fill(connection: Connection, field: FilterField, after: int, values_of: ValuesOf) -> None:
    """Writes the values of the next images of a field, or marks it as complete."""
    if after == 0:  # after changes were missed, there may be values of images that are gone
        own = filter_values.c.field.in_((field.number, -field.number))
        gone = filter_values.c.seq.not_in(sa.select(images.c.seq))
        connection.execute(sa.delete(filter_values).where(own, gone))
    query = sa.select(images.c.seq).where(images.c.seq > after).order_by(images.c.seq).limit(PAGE)
    seqs = list(connection.scalars(query))
    _write(connection, [field], seqs, values_of)
    reached = seqs[-1] if len(seqs) == PAGE else None
    update = sa.update(filter_fields).where(filter_fields.c.number == field.number)
    connection.execute(update.values(filled=reached))


def _write(
    connection: Connection, fields: list[FilterField], seqs: Iterable[int], values_of: ValuesOf
) -> None:
    """Replaces the values of some images, stored or deleted, by those of their metadata now."""
    seqs = list(seqs)
    numbers = [number for field in fields for number in (field.number, -field.number)]
    old = sa.delete(filter_values).where(filter_values.c.seq.in_(seqs))
    connection.execute(old.where(filter_values.c.field.in_(numbers)))
    query = sa.select(images.c.seq, images.c.metadata).where(images.c.seq.in_(seqs))
    names = [field.name for field in fields]
    rows = [
        values
        for row in connection.execute(query)
        for field, found in zip(fields, values_of(names, row.metadata), strict=True)
        for values in _rows(field.number, row.seq, found)
    ]
    if rows:
        connection.execute(sa.insert(filter_values), rows)


def _rows(number: int, seq: int, values: list[FieldValue]) -> list[dict[str, object]]:
    if len(values) > MOST_VALUES:
        number, values = -number, [FieldValue()]
    return [
        {"field": number, "seq": seq, "number": value.number, "moment": value.moment,
         "text": None if value.text is None else kept_text(value.text)}
        for value in values
    ]  # fmt: skip
