"""What the service does with pictures: put, get, delete, search."""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.engine import Row

from gpq.errors import ImageError
from service import problems
from service.encoder import Encoder, Picture
from service.feed import Feed
from service.originals import Originals
from service.problems import Problem
from service.settings import ID_PATTERN
from service.store import KEEP, Keep, OtherModel, Put, Store

DEFAULT_ID_DIGITS = 32
SEARCH_TRIES = 4
log = logging.getLogger("gpq.service")


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
            try:
                statuses = self.store.put(puts, self.encoder.model.id)
            except OtherModel as error:
                raise problems.unavailable(str(error)) from error
            self.feed.catch_up()
            for (place, put, _), status in zip(ready, statuses, strict=True):
                items[place] = {"id": put.id, "status": status}
        return items

    def get(self, id: str) -> Row[Any]:
        """Raises Problem 404."""
        row = self.store.get(id) if re.fullmatch(ID_PATTERN, id) else None
        if row is None:
            raise _missing(id)
        return row

    def delete(self, id: str) -> None:
        """Raises Problem 404."""
        if not re.fullmatch(ID_PATTERN, id) or not self.store.delete(id):
            raise _missing(id)
        self.feed.catch_up()

    def search_picture(self, data: bytes, k: int, min_score: float) -> list[Hit]:
        """Nearest to an uploaded picture; raises Problem 400, 413 or 415."""
        return self._search(self.encoder.lut(self._decode(data)), k, min_score)

    def search_stored(self, id: str, k: int, min_score: float) -> tuple[list[Hit], str]:
        """Nearest to a stored picture, and what was searched with: original or code."""
        row = self.get(id)
        lut, query = self._lut_of_stored(row)
        hits = self._search(lut, k, min_score)
        own_score = self.encoder.score(lut, row.code)
        if id not in [hit.id for hit in hits] and own_score >= min_score:
            # Lost among ties, or its own code is not its nearest: it belongs to its results.
            hits[k - 1 :] = [Hit(id, own_score, decode_metadata(row.metadata))]
        return hits, query

    def _lut_of_stored(self, row: Row[Any]) -> tuple[NDArray[np.float32], str]:
        data = self.originals.get(row.sha256)
        try:
            if data is not None:
                return self.encoder.lut(self.encoder.decode(data)), "original"
        except ImageError as error:  # limits were lowered, or the file was damaged
            log.warning("original %s cannot be decoded, searching by code: %s", row.sha256, error)
        return self.encoder.lut_of_code(row.code), "code"

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

    def _search(self, lut: NDArray[np.float32], k: int, min_score: float) -> list[Hit]:
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


def _missing(id: str) -> Problem:
    return Problem(404, "no-such-image", f"there is no image {id!r}")


def _failed(id: str | None, problem: Problem) -> dict[str, Any]:
    error = {"code": problem.code, "detail": problem.detail, "status": problem.status}
    return {"id": id, "status": "failed", "error": error}
