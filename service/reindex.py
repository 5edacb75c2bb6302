"""Codes of a new model for the pictures that are stored: made from their originals."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Row

from gpq.errors import ImageError
from gpq.model import Model
from service.encoder import Encoder, Picture
from service.originals import NoOriginals, Originals
from service.problems import Problem
from service.records import ModelError, ModelRow
from service.settings import REINDEX_BATCH
from service.store import Store

log = logging.getLogger("gpq.service")


@dataclass
class Outcome:
    """How many pictures got a code, and why others did not, by their ids."""

    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)


class Reindex:
    """What is done is stored; one that is broken off goes on with what is missing.

    share: of the time, how much it may take; the rest is left to searches.
    """

    def __init__(
        self, store: Store, encoder: Encoder, originals: Originals, share: float = 1.0
    ) -> None:
        self.store, self.encoder, self.originals = store, encoder, originals
        self.share = share
        self._stop = threading.Event()

    def stop(self) -> None:
        """After the pictures at hand."""
        self._stop.set()

    def run(self, row: ModelRow, model: Model, progress: Callable[[int], object]) -> Outcome:
        """Give every picture a code of the model; progress is told of each some of them.

        Raises ModelError where no originals are kept, or the model is taken out meanwhile.
        """
        outcome = Outcome()
        after = 0
        while not self._stop.is_set():
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
            codes = self._codes(page, model, outcome)
            self.store.models.fill(row.id, codes)
            outcome.done += len(codes)
            progress(len(page))
            self._stop.wait((time.monotonic() - started) * (1 / self.share - 1))
        return outcome

    def _codes(self, page: list[Row[Any]], model: Model, outcome: Outcome) -> dict[int, bytes]:
        pictures: dict[int, Picture] = {}
        for image in page:
            try:
                data = self.originals.get(image.sha256)
                if data is None:
                    outcome.failed[image.id] = "its original is not kept"
                else:
                    pictures[image.seq] = self.encoder.decode(data, [model])
            except ImageError as error:
                outcome.failed[image.id] = f"its original cannot be decoded: {error}"
            except Problem as error:
                outcome.failed[image.id] = error.detail
        codes = self.encoder.encode(list(pictures.values()), model)
        return dict(zip(pictures, codes, strict=True))
