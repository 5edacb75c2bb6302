"""Reads and writes API keys."""

from collections.abc import Iterable, Mapping
from time import time

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.database.engine import Database, now
from service.database.job_records import Key, Scope
from service.database.schema import keys
from service.errors import Refused


class KeyTable:
    """The keys table. Keys are never deleted, so that the audit log can refer to them.

    Every method raises SQLAlchemyError if the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def all(self) -> list[Key]:
        """Returns every key, the oldest first."""
        with self.database.read() as connection:
            return [_key(row) for row in connection.execute(_keys().order_by(keys.c.number))]

    def add(
        self,
        name: str,
        sha256: str,
        scopes: Iterable[Scope],
        prefix: str,
        expires: float | None,
    ) -> Key:
        """Adds a key and returns it."""

        def add(connection: Connection) -> Key:
            values = {"name": name, "sha256": sha256, "scopes": " ".join(sorted(scopes))}
            values |= {"prefix": prefix}
            insert = sa.insert(keys).values(**values, expires=expires, created=now())
            connection.execute(insert)
            return _key(connection.execute(_keys().where(keys.c.sha256 == sha256)).one())

        return self.database.write(add)

    def revoke(self, number: int, *, keep_admin: bool = False) -> Key | None:
        """Revokes a key and returns it; None if there is none of that number.

        ``keep_admin``: raises Refused if no valid key with the scope admin would remain.
        """

        def revoke(connection: Connection) -> Key | None:
            this = keys.c.number == number
            others = map(_key, connection.execute(_keys().where(~this)))
            if keep_admin and not any("admin" in k.scopes and k.valid(time()) for k in others):
                raise Refused(
                    "this is the last key that can manage keys: create another one with the scope "
                    "admin first, or use `gpq keys revoke`"
                )
            change = sa.update(keys).where(this, keys.c.revoked.is_(None))
            connection.execute(change.values(revoked=now()))
            row = connection.execute(_keys().where(this)).one_or_none()
            return None if row is None else _key(row)

        return self.database.write(revoke)

    def note_uses(self, times: Mapping[int, float]) -> None:
        """Writes when keys were last used, by their number."""

        def note(connection: Connection) -> None:
            for number, used in times.items():
                connection.execute(sa.update(keys).where(keys.c.number == number).values(used=used))

        self.database.write(note)


def _keys() -> sa.Select[tuple[object, ...]]:
    return sa.select(*keys.c)


def _key(row: sa.Row[tuple[object, ...]]) -> Key:
    values = dict(row._mapping)
    return Key(**{**values, "scopes": frozenset(str(values["scopes"]).split())})
