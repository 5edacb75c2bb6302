"""What the service does with pictures: put, get, delete, search."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from sqlalchemy.engine import Row

from gpq.errors import ImageError
from service import problems
from service.encoder import Encoder, Picture
from service.feed import Feed
from service.originals import Originals
from service.problems import Problem
from service.settings import ID_PATTERN
from service.store import KEEP, Keep, Put, Store

DEFAULT_ID_DIGITS = 32
SEARCH_TRIES = 4


@dataclass(frozen=True)
class Upload:
    """One picture of a request. id None: named by its bytes. metadata as in ``store.Put``."""

    file: BinaryIO
    id: str | None
    metadata: str | Keep | None = KEEP


@dataclass(frozen=True)
class Hit:
    id: str
    score: float
    metadata: Any


class Catalogue:
    """All methods block; call them off the event loop."""

    def __init__(self, store: Store, feed: Feed, encoder: Encoder, originals: Originals) -> None:
        self.store, self.feed, self.encoder, self.originals = store, feed, encoder, originals

    def put(self, uploads: Sequence[Upload]) -> list[dict[str, Any]]:
        """Store pictures; one reply item for each, failures in place.

        When it returns they are durable and the next search here finds them.
        """
        items: list[dict[str, Any]] = [{} for _ in uploads]
        ready: list[tuple[int, Put, Picture]] = []
        taken: set[str] = set()
        for place, upload in enumerate(uploads):
            try:
                put, picture = self._prepare(upload, taken)
            except Problem as problem:
                items[place] = _failed(upload.id, problem)
                continue
            taken.add(put.id)
            ready.append((place, put, picture))
        codes = self.encoder.encode([picture for _, _, picture in ready])
        puts = [replace(put, code=code) for (_, put, _), code in zip(ready, codes, strict=True)]
        if puts:
            statuses = self.store.put(puts, self.encoder.model.id)
            self.feed.catch_up()
            for (place, put, _), status in zip(ready, statuses, strict=True):
                items[place] = {"id": put.id, "status": status}
        return items

    def get(self, id: str) -> Row[Any]:
        """Raises Problem 404."""
        row = self.store.get(id)
        if row is None:
            raise Problem(404, "no-such-image", f"there is no image {id!r}")
        return row

    def delete(self, id: str) -> None:
        """Raises Problem 404."""
        if not self.store.delete(id):
            raise Problem(404, "no-such-image", f"there is no image {id!r}")
        self.feed.catch_up()

    def search_picture(self, data: bytes, k: int, min_score: float) -> list[Hit]:
        """Nearest to an uploaded picture; raises Problem 400, 413 or 415."""
        return self._search(self.encoder.lut(self._decode(data)), k, min_score)

    def search_stored(self, id: str, k: int, min_score: float) -> tuple[list[Hit], str]:
        """Nearest to a stored picture, and what was searched with: original or code."""
        row = self.get(id)
        data = self.originals.get(row.sha256)
        if data is None:
            return self._search(self.encoder.lut_of_code(row.code), k, min_score), "code"
        return self._search(self.encoder.lut(self.encoder.decode(data)), k, min_score), "original"

    def _prepare(self, upload: Upload, taken: set[str]) -> tuple[Put, Picture]:
        data = upload.file.read()
        digest = hashlib.sha256(data).hexdigest()
        id = digest[:DEFAULT_ID_DIGITS] if upload.id is None else upload.id
        if not re.fullmatch(ID_PATTERN, id):
            raise Problem(422, "invalid-id", f"the id does not match {ID_PATTERN}")
        if id in taken:
            raise Problem(422, "duplicate-id", f"the id {id!r} is in this request twice")
        picture = self._decode(data)
        self.originals.put(digest, data)
        size = picture.width, picture.height, len(data)
        return Put(id, b"", digest, *size, upload.metadata), picture

    def _decode(self, data: bytes) -> Picture:
        if not data:
            raise Problem(400, "empty-file", "the file is empty")
        try:
            return self.encoder.decode(data)
        except ImageError as error:
            raise problems.of_image(error) from error

    def _search(self, lut: Any, k: int, min_score: float) -> list[Hit]:
        """Hits resolved in the database; where one changed meanwhile, search again."""
        for _ in range(SEARCH_TRIES):
            near = [(s, score) for s, score in self.feed.index.search(lut, k) if score >= min_score]
            stored = self.store.by_seq([seq for seq, _ in near])
            if len(stored) == len(near):
                break
            self.feed.catch_up()
        return [
            Hit(stored[seq][0], score, decode_metadata(stored[seq][1]))
            for seq, score in near
            if seq in stored
        ]


def decode_metadata(text: str | None) -> Any:
    """Stored metadata -> the JSON object, or None."""
    return None if text is None else json.loads(text)


def _failed(id: str | None, problem: Problem) -> dict[str, Any]:
    error = {"code": problem.code, "detail": problem.detail, "status": problem.status}
    return {"id": id, "status": "failed", "error": error}
