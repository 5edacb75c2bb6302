"""Records which databases use an image store: one file for each, at its top."""

import logging
import re
from collections.abc import Sequence
from typing import Protocol

CLAIM = re.compile(r"database-(.+)\.txt")  # holds the head of its feed at the last sweep
FIRST_CLAIM = "database.txt"  # written by earlier versions; holds the name of one database
log = logging.getLogger("gpq.service")


class Top(Protocol):
    """The files at the top of an image store, beside the folders of originals."""

    def names(self) -> Sequence[str]:
        """Returns the names of all files except half-written ones."""

    def read(self, name: str) -> str: ...

    def write(self, name: str, text: str) -> None:
        """Writes a file atomically, even if others write it too."""


def claim(top: Top, place: object, database: str, head: int) -> bool:
    """Records that a database, whose feed is at ``head``, uses a store. Raises OSError.

    Returns whether the database knows of all originals there, so that it may sweep: no other
    database ever used the store, and this one was not restored to an older state since its last
    sweep. Records nothing in a place with other files and no record.
    """
    before = _claims(top)
    if not before and top.names():
        log.info("%s is not swept: it held files before any database used it", place)
        return False
    if head > before.get(database, -1):
        try:
            top.write(f"database-{database}.txt", str(head))
        except OSError:
            if database not in before:
                raise  # later, a full disk must not prevent a sweep, which may help
    claims = _claims(top)
    if claims.keys() != {database}:
        others = ", ".join(sorted(claims.keys() - {database}))
        log.info("%s is not swept: database %s uses it too", place, others)
        return False
    if head < claims[database]:
        log.warning("%s is not swept: the database is older than at its last sweep", place)
        return False
    return True


def _claims(top: Top) -> dict[str, int]:
    """Returns the recorded head of each database, by its name."""
    claims: dict[str, int] = {}
    for name in top.names():
        if name == FIRST_CLAIM:
            claims.setdefault(top.read(name).strip(), 0)
        elif match := CLAIM.fullmatch(name):
            text = top.read(name).strip()
            claims[match[1]] = int(text) if text.isdecimal() else 0
    return claims
