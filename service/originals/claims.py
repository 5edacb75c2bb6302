"""Whose originals these are: at the top of their place a file for each database that came to it."""

import logging
import re
from collections.abc import Sequence
from typing import Protocol

CLAIM = re.compile(r"database-(.+)\.txt")  # holds the head of its feed when it last swept
FIRST_CLAIM = "database.txt"  # of earlier versions, for one database alone: holds its name
log = logging.getLogger("gpq.service")


class Top(Protocol):
    """The files at the top of a place, beside the folders of originals."""

    def names(self) -> Sequence[str]:
        """Of whatever is there, but for what is half-written."""

    def read(self, name: str) -> str: ...

    def write(self, name: str, text: str) -> None:
        """Whole, whoever else writes it too."""


def claim(top: Top, place: object, database: str, head: int) -> bool:
    """Whether no other database ever came to the place, and this one has not been put back to an
    older state since it last swept: only then does it know of all originals.

    It is written down that it came; but where somebody else's files are and no claim is.
    """
    before = _claims(top)
    if not before and top.names():
        log.info("%s is not swept: its files were there before any database", place)
        return False
    if head > before.get(database, -1):
        try:
            top.write(f"database-{database}.txt", str(head))
        except OSError:
            if database not in before:
                raise  # a full disk, which a sweep may help, else keeps nobody from sweeping
    claims = _claims(top)
    if claims.keys() != {database}:
        others = ", ".join(sorted(claims.keys() - {database}))
        log.info("%s is not swept: it is that of database %s too", place, others)
        return False
    if head < claims[database]:
        log.warning("%s is not swept: the database is older than when it was last swept", place)
        return False
    return True


def _claims(top: Top) -> dict[str, int]:
    """Heads by the names of databases."""
    claims: dict[str, int] = {}
    for name in top.names():
        if name == FIRST_CLAIM:
            claims.setdefault(top.read(name).strip(), 0)
        elif match := CLAIM.fullmatch(name):
            text = top.read(name).strip()
            claims[match[1]] = int(text) if text.isdecimal() else 0
    return claims
