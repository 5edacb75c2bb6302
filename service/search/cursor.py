"""Cursors of searches: where the next page of hits begins.

A cursor has all that the next page needs, the look-up table of the query too, so any process can
continue a search, however deep. It is signed, so that clients cannot make their own.
"""

import hashlib
import hmac
import json
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpq.model.codebook import K
from service.errors import InvalidCursor

VERSION = 1
SIGNATURE_BYTES = 32
FOREIGN = (
    "cursor: it is not one of this database's services, or was changed; send next_cursor as it "
    "was, or search again"
)
HEAD = struct.Struct("<BI")  # version, and bytes of the JSON before the table
Compared = Literal["image", "original", "code", "examples"]


@dataclass(frozen=True)
class LastHit:
    """The last hit of a page: the next one begins after it."""

    score: float
    seq: int


@dataclass(frozen=True)
class Cursor:
    """A search that goes on.

    ``model``: its id. ``table``: the look-up table (M,K) float32. ``after``: the last hit so far.
    ``query``: as in ``SearchAnswer``. ``filter``: as JSON, or None. ``excluded``: the sha256 of
    bytes whose images are left out. ``k``, ``min_score``: as in ``SearchOptions``. ``total``: the
    number of images, if it is costly to count, whose ids begin with ``prefix``.
    """

    model: str
    table: NDArray[np.float32]
    after: LastHit
    query: Compared
    filter: Any
    excluded: list[str]
    k: int
    min_score: float
    total: int | None = None
    prefix: str = ""

    def encode(self, key: bytes) -> str:
        """Returns URL-safe text."""
        values = {
            "model": self.model, "score": self.after.score, "seq": self.after.seq,
            "query": self.query, "filter": self.filter, "excluded": self.excluded, "k": self.k,
            "min_score": self.min_score, "total": self.total,
            "prefix": self.prefix,
        }  # fmt: skip
        head = json.dumps(values).encode()
        table = np.ascontiguousarray(self.table, dtype="<f4").tobytes()
        data = HEAD.pack(VERSION, len(head)) + head + table
        return urlsafe_b64encode(_signature(data, key) + data).decode()


def decode(text: str, key: bytes) -> Cursor:
    """Returns the cursor of a text. Raises InvalidCursor."""
    try:
        raw = urlsafe_b64decode(text.encode("ascii"))
    except ValueError as error:
        raise InvalidCursor(FOREIGN) from error
    signature, data = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(data, key)):
        raise InvalidCursor(FOREIGN)
    version, length = HEAD.unpack_from(data)
    if version != VERSION:
        raise InvalidCursor("cursor: it comes from another version; search again")
    values = json.loads(data[HEAD.size : HEAD.size + length])
    table = np.frombuffer(data, "<f4", offset=HEAD.size + length).reshape(-1, K)
    after = LastHit(values.pop("score"), values.pop("seq"))
    return Cursor(table=table.astype(np.float32), after=after, **values)


def _signature(data: bytes, key: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.sha256)
