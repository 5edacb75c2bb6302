"""Pictures -> the nearest stored ones."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.engine import Row

from gpq.errors import ImageError
from service.catalogue import Catalogue, decode_metadata
from service.encoder import Encoder, Picture
from service.feed import Feed
from service.problems import Problem
from service.store import Store

SEARCH_TRIES = 4
log = logging.getLogger("gpq.service")


@dataclass(frozen=True)
class Hit:
    id: str
    score: float
    metadata: Any


class Searcher:
    """All methods block; call them off the event loop. Scores below ``min_score`` are no hits."""

    def __init__(self, catalogue: Catalogue, store: Store, feed: Feed, encoder: Encoder) -> None:
        self.catalogue, self.store, self.feed, self.encoder = catalogue, store, feed, encoder

    def by_picture(self, data: bytes, k: int, min_score: float) -> list[Hit]:
        """Nearest to an uploaded picture; raises Problem 400, 413 or 415."""
        return self._search(self.encoder.luts([self.encoder.accept(data)]), k, min_score)[0]

    def by_pictures(
        self, files: Sequence[BinaryIO], k: int, min_score: float
    ) -> list[list[Hit] | Problem]:
        """``by_picture`` for each, in one scan; what is wrong with one stands in its place."""
        accepted = [self._accept(file) for file in files]
        pictures = [picture for picture in accepted if isinstance(picture, Picture)]
        found = iter(self._search(self.encoder.luts(pictures), k, min_score) if pictures else [])
        return [entry if isinstance(entry, Problem) else next(found) for entry in accepted]

    def by_id(
        self, id: str, k: int, min_score: float
    ) -> tuple[list[Hit], Literal["original", "code"]]:
        """Nearest to a stored picture, itself included, and what was searched with.

        Raises Problem 404.
        """
        row = self.catalogue.get(id)
        lut, query = self._lut_of_stored(row)
        hits = self._search(lut, k, min_score)[0]
        own_score = self.encoder.score(lut, row.code)
        if id not in [hit.id for hit in hits] and own_score >= min_score:
            # Lost among ties, or its own code is not its nearest: it belongs to its results.
            hits[k - 1 :] = [Hit(id, own_score, decode_metadata(row.metadata))]
        return hits, query

    def _accept(self, file: BinaryIO) -> Picture | Problem:
        try:
            return self.encoder.accept(file.read())
        except Problem as problem:
            return problem

    def _lut_of_stored(
        self, row: Row[Any]
    ) -> tuple[NDArray[np.float32], Literal["original", "code"]]:
        data = self.catalogue.originals.get(row.sha256)
        try:
            if data is not None:
                return self.encoder.luts([self.encoder.decode(data)]), "original"
        except ImageError as error:  # limits were lowered, or the file was damaged
            log.warning("original %s cannot be decoded, searching by code: %s", row.sha256, error)
        return self.encoder.lut_of_code(row.code), "code"

    def _search(self, luts: NDArray[np.float32], k: int, min_score: float) -> list[list[Hit]]:
        """Hits resolved in the database; where one changed meanwhile, search again."""
        for _ in range(SEARCH_TRIES):
            near = [
                [(seq, score) for seq, score in found if score >= min_score]
                for found in self.feed.index.search(luts, k)
            ]
            wanted = {seq for found in near for seq, _ in found}
            stored = self.store.by_seq(sorted(wanted))
            if len(stored) == len(wanted):
                break
            self.catalogue.catch_up()
        return [
            [
                Hit(stored[seq][0], score, decode_metadata(stored[seq][1]))
                for seq, score in found
                if seq in stored
            ]
            for found in near
        ]
