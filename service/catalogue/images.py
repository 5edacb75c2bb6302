"""The stored pictures: put, get, list, describe, delete; their originals and thumbnails."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Row

from gpq.errors import ImageError
from gpq.pixels import decode
from service import problems
from service.catalogue.ingest import Ingest, Prepared, Upload
from service.database.records import OtherModel
from service.database.store import Store
from service.index.feed import Feed
from service.models.encoder import Encoder
from service.models.loader import Lineup
from service.originals import Originals
from service.originals.keys import Parts
from service.problems import Problem
from service.settings import ID_PATTERN
from service.telemetry import timing

PUT_TRIES = 4


@dataclass(frozen=True)
class Original:
    """What is kept of an upload, or made of it, to be sent."""

    sha256: str
    media_type: str
    content: Parts | bytes


class Catalogue:
    """All methods block; call them off the event loop."""

    def __init__(
        self, store: Store, feed: Feed, encoder: Encoder, lineup: Lineup, originals: Originals
    ) -> None:
        self.store, self.feed, self.encoder, self.originals = store, feed, encoder, originals
        self.ingest = Ingest(encoder, originals)
        self.lineup = lineup
        self._counted = (-1, ""), (0, 0, 0)

    def put(self, uploads: Sequence[Upload]) -> tuple[list[dict[str, Any]], int]:
        """Store pictures; one reply item for each, failures in place, and the newest seq.

        When it returns they are durable and the next search here finds them. They get a code
        of every model there is. Raises Problem 503 where one of them cannot be loaded here.
        """
        for _ in range(PUT_TRIES):
            try:
                return self._put(uploads)
            except OtherModel:
                self.lineup.refresh()
        raise problems.unavailable("models change faster than can be written; try again")

    def _put(self, uploads: Sequence[Upload]) -> tuple[list[dict[str, Any]], int]:
        models = self.lineup.kept
        items: list[dict[str, Any]] = [{"file": upload.name} for upload in uploads]
        ready: list[Prepared] = []
        places: list[int] = []  # of those in the request
        taken: dict[str, Upload] = {}
        for place, prepared in enumerate(self.ingest.prepare(uploads, models)):
            upload = uploads[place]
            if isinstance(prepared, Problem):
                items[place] |= _failed(upload.id, prepared)
                continue
            id = prepared.put.id
            if id not in taken:
                ready.append(prepared)
                places.append(place)
                taken[id] = upload
            elif _repeats(upload, taken[id]):
                items[place] |= {"id": id, "status": "unchanged"}
            else:
                detail = f"the id {id!r} is in this request twice"
                items[place] |= _failed(upload.id, Problem(422, "duplicate-id", detail))
        if not ready:
            return items, 0
        puts = self.ingest.encode(ready, models)
        self.ingest.keep(ready)
        with timing.stage("db"):
            stored = self.store.put(puts)
        newest = max(entry.seq for entry in stored)
        self.catch_up(newest)
        for place, put, entry in zip(places, puts, stored, strict=True):
            items[place] |= {"id": put.id, "status": entry.status}
        return items, newest

    def get(self, id: str) -> Row[Any]:
        """Raises Problem 404."""
        row = self.store.reader.get(id) if re.fullmatch(ID_PATTERN, id) else None
        if row is None:
            raise _missing(id)
        return row

    def page(self, after: int, limit: int) -> Sequence[Row[Any]]:
        """At most ``limit`` pictures in seq order, from the first past seq ``after``."""
        return self.store.reader.page(after, limit)

    def counts(self, head: int) -> tuple[int, int, int]:
        """Pictures, distinct codes, and the most pictures that share one, at feed number
        ``head`` or later; counted anew only where it has moved, or the model is another one."""
        of, model = (head, self.feed.model), self.feed.model
        if self._counted[0] != of:
            self._counted = of, self.store.reader.counts(model)
        return self._counted[1]

    def describe(self, id: str, metadata: str | None) -> Row[Any]:
        """Give a picture other metadata; raises Problem 404."""
        if not re.fullmatch(ID_PATTERN, id) or not self.store.describe(id, metadata):
            raise _missing(id)
        return self.get(id)

    def delete(self, id: str) -> None:
        """No later search here finds it. Raises Problem 404."""
        seq = self.store.delete(id) if re.fullmatch(ID_PATTERN, id) else None
        if seq is None:
            raise _missing(id)
        self.catch_up(seq)

    def content(self, id: str) -> Original:
        """The picture as it was uploaded; raises Problem 404 where originals are not kept."""
        row = self.get(id)
        content = self.originals.parts(row.sha256)
        if content is None:
            raise _no_original(id)
        media_type = decode.media_type(content.first) or "application/octet-stream"
        return Original(row.sha256, media_type, content)

    def thumbnail(self, id: str, known: str) -> Original:
        """A small WebP; raises Problem 404 where there is nothing to make it of. Not made
        where its sha256 is ``known``, and the original still there."""
        row = self.get(id)
        data = self.originals.get(row.sha256)
        if data is None:
            raise _no_original(id)
        try:
            small = b"" if row.sha256 == known else self.encoder.thumbnail(data)
            return Original(row.sha256, "image/webp", small)
        except ImageError as error:  # limits were lowered, or the file was damaged
            raise Problem(404, "no-thumbnail", f"the original of {row.id!r}: {error}") from error

    def catch_up(self, seq: int | None = None) -> None:
        """Apply what was committed, at least up to ``seq``; raises Problem 503."""
        try:
            self.feed.catch_up(seq)
        except OtherModel as error:
            raise problems.unavailable(str(error)) from error


def _no_original(id: str) -> Problem:
    return Problem(404, "no-original", f"the original of {id!r} is not kept here")


def _missing(id: str) -> Problem:
    return Problem(404, "no-such-image", f"there is no image {id!r}")


def _repeats(upload: Upload, earlier: Upload) -> bool:
    """Both are named by their bytes, the same then, and say the same of them."""
    both = (upload.id, earlier.id, upload.metadata)
    return both == (None, None, earlier.metadata)


def _failed(id: str | None, problem: Problem) -> dict[str, Any]:
    error = {"code": problem.code, "detail": problem.detail, "status": problem.status}
    return {"id": id, "status": "failed", "error": error}
