"""Decodes images on a few threads."""

import io
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gpq.errors import BrokenImage, ImageError
from gpq.model.model import Model
from gpq.pixels import decode
from gpq.system import memory
from service.concurrency import wait_budget
from service.concurrency.groups import groups
from service.concurrency.wait_budget import WaitBudget
from service.telemetry import timing

THUMBNAIL_PIXELS = 256  # longer side of a thumbnail
GROUP, GROUP_BYTES = 8, 16_384  # small images that a thread decodes at a time
IMPORT_GROUP_BYTES = 2**20  # for an import, which has many callers and no hurry
LARGE_PIXELS = 4_000_000  # the memory of a larger image is returned to the system at once

R = TypeVar("R")


@dataclass(frozen=True)
class DecodedImage:
    """An image: its full size, and the (3,S,S) uint8 pixels that each model sees, by model id."""

    width: int
    height: int
    pixels: Mapping[str, NDArray[np.uint8]]


class Decoder:
    """Decodes with few threads, which bounds memory whatever is uploaded.

    ``max_pixels``: of one image. ``group_bytes``: how many bytes of one caller a thread decodes at
    a time, in groups of at most GROUP images. Methods raise WaitedTooLong if no thread starts the
    work within the wait budget.
    """

    def __init__(self, max_pixels: int, threads: int, group_bytes: int = GROUP_BYTES) -> None:
        self.max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(threads, "decode")
        self._group_bytes = group_bytes
        self._most_groups = 2 * threads  # of one caller in the queue; the others wait, unread

    def close(self) -> None:
        """Cancels waiting work. Decoding in progress is finished, but ``close`` does not wait."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def decode(self, read: Callable[[], bytes], model: Model) -> Future[DecodedImage]:
        """Reads and decodes one image for a model. The future may raise ImageError."""
        return self._submit(lambda: self._decode(read(), [model]), wait_budget.current())

    def decode_all(
        self, uploads: Iterable[bytes], models: Collection[Model]
    ) -> list[DecodedImage | ImageError]:
        """Decodes images for some models, in parallel; an error takes the place of its image.

        ``uploads`` is read as threads become free.
        """
        decoded: list[DecodedImage | ImageError] = []
        decoding: deque[tuple[WaitBudget, Future[list[DecodedImage | ImageError]]]] = deque()

        def take_next() -> None:
            budget, future = decoding.popleft()
            group = budget.result_of(future)
            decoded.extend(group)

        budget = wait_budget.current()
        # In groups, because handing over a small image takes as long as decoding it.
        for group in groups(uploads, GROUP, len, self._group_bytes):
            decoding.append(
                (budget, self._submit(partial(self._decode_group, group, models), budget))
            )
            budget = WaitBudget(math.inf)  # only the first group is subject to the caller's budget
            if len(decoding) == self._most_groups:
                take_next()
        while decoding:
            take_next()
        return decoded

    def thumbnail(self, data: bytes) -> bytes:
        """Returns a WebP of at most THUMBNAIL_PIXELS a side. Raises ImageError."""
        budget = wait_budget.current()
        return budget.result_of(self._submit(partial(self._shrink, data), budget))

    def _submit(self, work: Callable[[], R], budget: WaitBudget) -> Future[R]:
        submitted, spent = time.perf_counter(), timing.current()

        def run() -> R:
            began = time.perf_counter()
            timing.add("queue", began - submitted, spent)
            budget.spend(began - submitted)
            try:
                return work()
            finally:
                timing.add("decode", time.perf_counter() - began, spent)

        return self._threads.submit(run)

    def _decode_group(
        self, uploads: Sequence[bytes], models: Collection[Model]
    ) -> list[DecodedImage | ImageError]:
        decoded: list[DecodedImage | ImageError] = []
        for data in uploads:
            try:
                decoded.append(self._decode(data, models))
            except ImageError as error:
                decoded.append(error)
        return decoded

    def _decode(self, data: bytes, models: Collection[Model]) -> DecodedImage:
        scales = {model.rules.shrink_to for model in models}
        with _returned_memory() as sizes:
            decoded = {scale: decode.decode(data, self.max_pixels, scale) for scale in scales}
            pixels = {m.id: m.prepare(decoded[m.rules.shrink_to].image) for m in models}
            full = decoded.popitem()[1]
            sizes += [full.width, full.height]
            del decoded, full
        width, height = sizes
        return DecodedImage(width, height, pixels)

    def _shrink(self, data: bytes) -> bytes:
        buffer = io.BytesIO()
        with _returned_memory() as sizes:
            full = decode.decode(data, self.max_pixels, shrink_to=THUMBNAIL_PIXELS)
            full.image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
            full.image.save(buffer, "WEBP")
            sizes += [full.width, full.height]
            del full
        return buffer.getvalue()


@contextmanager
def _returned_memory() -> Iterator[list[int]]:
    """Returns memory to the system at the end, if the image was large or broken.

    The caller puts width and height into the list.
    """
    sizes: list[int] = []
    try:
        yield sizes
    except BrokenImage:
        memory.give_back()
        raise
    if math.prod(sizes) > LARGE_PIXELS:
        memory.give_back()
