"""Entries of a source: one image each, with its id, its metadata and how to read it."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from threading import Event
from typing import Any, TypeVar

from service.errors import SourceError

ESCAPED = re.compile(rb"[^A-Za-z0-9._-]")  # bytes of a name that its id has in another form
MAX_ID_LENGTH = 128
LONG_NAME_DIGITS = 32  # hexadecimal digits in the id of a name that is too long

Item = TypeVar("Item")


@dataclass(frozen=True)
class Entry:
    """One image of a source.

    ``name``: its path in the source, with / between folders. ``read``: returns its bytes; raises
    OSError or SourceError. ``size``: returns the number of bytes, or 0 if ``read`` would raise.
    ``stamp``: changes when the bytes do; "" if that is not known.
    """

    name: str
    id: str
    metadata: dict[str, Any]
    read: Callable[[], bytes]
    size: Callable[[], int] = int
    stamp: str = ""


def entry(
    name: str,
    metadata: dict[str, Any],
    read: Callable[[], bytes],
    id: str | None = None,
    size: Callable[[], int] = int,
    stamp: str = "",
) -> Entry:
    """Describes an image of a source; its id comes from its name unless one is given."""
    shown = name.encode("utf-8", "replace").decode()
    return Entry(shown, id or id_of(name), {"path": shown, **metadata}, read, size, stamp)


def id_of(name: str) -> str:
    """Makes an id from the name of an image that has none.

    A slash becomes a colon, and every byte that an id cannot contain becomes ~HH, its value in
    hexadecimal. If that is too long, the id is the beginning of the name's SHA-256.
    """
    raw = name.encode("utf-8", "surrogateescape")
    id = ESCAPED.sub(lambda found: _escape(found[0]), raw).decode()
    return id if len(id) <= MAX_ID_LENGTH else hashlib.sha256(raw).hexdigest()[:LONG_NAME_DIGITS]


def _escape(byte: bytes) -> bytes:
    return b":" if byte == b"/" else b"~%02X" % ord(byte)


def failing(reason: str) -> Callable[[], bytes]:
    def read() -> bytes:
        raise SourceError(reason)

    return read


def too_large(size: int, max_bytes: int) -> str:
    return f"the file has {size} bytes; at most {max_bytes} are accepted (GPQ_MAX_BODY_BYTES)"


def until(stop: Event, items: Iterator[Item]) -> Iterator[Item]:
    return takewhile(lambda _: not stop.is_set(), items)


def length(items: Iterator[object]) -> int:
    return sum(1 for _ in items)
