"""Codes of a new model for the pictures that are stored: made from their originals."""

import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy.engine import Row

from gpq.model.model import Model
from service.database.records import ModelError, ModelRow
from service.database.store import Store
from service.jobs.run import JobRun
from service.jobs.throttle import Throttle
from service.models.encoder import Encoder, Picture
from service.originals import NoOriginals, Originals
from service.problems import Problem
from service.settings import REINDEX_BATCH


class Reindex:
    """What is done is stored; one that is broken off goes on with what is missing."""

    def __init__(
        self, store: Store, encoder: Encoder, originals: Originals, throttle: Throttle
    ) -> None:
        self.store, self.encoder, self.originals = store, encoder, originals
        self.throttle = throttle

    def run(self, row: ModelRow, model: Model, run: JobRun) -> None:
        """Give every picture a code of the model.

        Raises ModelError where no originals are kept, or the model is taken out meanwhile.
        """
        after = 0
        self.throttle.rest(0.0, run)
        while not run.stop.is_set():
            started = time.monotonic()
            page = self.store.models.missing(row.number, after, REINDEX_BATCH)
            if not page:
                self.store.models.settle(row.id)
                break
            if isinstance(self.originals, NoOriginals):
                raise ModelError(
                    "GPQ_IMAGE_STORE is none: without the original pictures nothing can be "
                    "encoded anew; post all pictures again, or set it to where they are kept"
                )
            after = page[-1].seq
            codes, failures = self._codes(page, model)
            self.store.models.fill(row.id, codes)
            run.advance(len(page), page[-1].id, failures)
            self.throttle.rest(time.monotonic() - started, run)

    def _codes(
        self, page: list[Row[Any]], model: Model
    ) -> tuple[dict[int, bytes], list[tuple[str, str]]]:
        """Of those that can be encoded, by their seqs; ids of the others, and why."""
        failures: list[tuple[str, str]] = []
        kept: list[Row[Any]] = []

        def contents() -> Iterator[bytes]:
            for image in page:
                try:
                    data = self.originals.get(image.sha256)
                except Problem as error:
                    failures.append((image.id, error.detail))
                    continue
                if data is None:
                    failures.append((image.id, "its original is not kept"))
                else:
                    kept.append(image)
                    yield data

        pictures: dict[int, Picture] = {}
        accepted = self.encoder.accept(contents(), [model])
        for image, picture in zip(kept, accepted, strict=True):
            if isinstance(picture, Problem):
                reason = f"its original cannot be decoded: {picture.detail}"
                failures.append((image.id, reason))
            else:
                pictures[image.seq] = picture
        codes = self.encoder.encode(list(pictures.values()), model)
        return dict(zip(pictures, codes, strict=True)), failures
