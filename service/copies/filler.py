"""Computes the perceptual hashes that stored images lack, on a background thread."""

import math
import os
import socket
import time
from collections.abc import Iterator

from gpq.errors import ImageError
from service.concurrency.periodic import PeriodicThread
from service.copies.index import CopyIndex
from service.database.copies import UNREADABLE
from service.database.records import CopyHash, MissingCode
from service.database.state import COPY_FILLER
from service.database.store import Store
from service.decoding.decoder import Decoder
from service.originals.originals import NoOriginals, Originals

LOOK_SECONDS, COMPACT_SECONDS = 5.0, 300.0
PAGE = 16  # images hashed at a time
LEASE_SECONDS = 60.0
SHARE = 0.5  # of the time that the thread works, at most


class CopyFiller:
    """Reads the originals of images that were stored without a hash; one process does so at a time.
    An image without an original, or with a damaged one, gets UNREADABLE."""

    def __init__(
        self, store: Store, index: CopyIndex, originals: Originals, decoder: Decoder
    ) -> None:
        self.store, self.index = store, index
        self.originals, self.decoder = originals, decoder
        self._owner = f"{socket.gethostname()[:48]}-{os.getpid()}"
        self._complete_to = 0  # the feed number up to which all images have a row
        self._restarts, self._compacted, self._retried = index.restarts, -math.inf, False
        self._thread = PeriodicThread("copies", self._work, LOOK_SECONDS, at_once=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def _work(self) -> None:
        self.index.catch_up()
        if time.monotonic() - self._compacted >= COMPACT_SECONDS:
            self.index.compact(self.store.copies.counts().hashed)
            self._compacted = time.monotonic()
        if isinstance(self.originals, NoOriginals):
            return
        if self._restarts != self.index.restarts:
            self._complete_to, self._restarts = 0, self.index.restarts
        head = self.store.feed.head()
        if head != self._complete_to:
            self._fill(head)

    def _fill(self, head: int) -> None:
        after, leased = self._complete_to, -math.inf
        while not self._thread.stopping.is_set():
            began = time.monotonic()
            if began - leased > LEASE_SECONDS / 2:
                if not self.store.state.lease(COPY_FILLER, self._owner, LEASE_SECONDS):
                    return
                leased = began
            if not self._retried:
                self.store.copies.retry()
                self._retried = True
            page = self.store.copies.missing(after, PAGE)
            if not page:
                self._complete_to = head
                return
            self.store.copies.fill(self._hashes(page))
            after = page[-1].seq
            self._thread.stopping.wait((time.monotonic() - began) * (1 / SHARE - 1))

    def _hashes(self, page: list[MissingCode]) -> dict[int, CopyHash]:
        """Raises Unavailable if the image store does not answer."""
        found = dict.fromkeys((image.seq for image in page), UNREADABLE)
        kept: list[int] = []

        def contents() -> Iterator[bytes]:
            for image in page:
                data = self.originals.get(image.sha256)
                if data is not None:
                    kept.append(image.seq)
                    yield data

        decoded = self.decoder.decode_all(contents(), [], copy_hash=True)
        for seq, image in zip(kept, decoded, strict=True):
            if not isinstance(image, ImageError) and image.copy_hash is not None:
                found[seq] = image.copy_hash
        return found
