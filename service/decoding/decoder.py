"""Hands images to decoding processes, on a few threads."""

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gpq.errors import ImageError
from gpq.model.model import Model
from service.concurrency import wait_budget
from service.concurrency.groups import groups
from service.concurrency.wait_budget import WaitBudget
from service.concurrency.work import Work
from service.decoding.pool import DecodePool
from service.decoding.process import ProcessLimits
from service.decoding.task import Input, Output, Task
from service.settings import Settings
from service.telemetry import timing

THUMBNAIL_PIXELS = 256  # longer side of a thumbnail
GROUP, GROUP_BYTES = 8, 16_384  # small images that a process decodes at a time
IMPORT_GROUP_BYTES = 2**20  # for an import, which has many callers and no hurry
# Memory of a process beyond its program: the file, perhaps twice, and copies of the pixels.
BASE_BYTES, BYTES_PER_PIXEL = 128 * 2**20, 12

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class DecodedImage:
    """An image: its full size, and the (3,S,S) uint8 pixels that each model sees, by model id."""

    width: int
    height: int
    pixels: Mapping[str, NDArray[np.uint8]]


class Decoder:
    """Decodes with few processes, which bounds memory whatever is uploaded.

    ``group_bytes``: how many bytes of one caller a process decodes at a time, in groups of at most
    GROUP images. Methods raise WaitedTooLong if no process begins within the wait budget, and
    ClientGone if the work is abandoned.
    """

    def __init__(self, pool: DecodePool, group_bytes: int = GROUP_BYTES) -> None:
        self._pool = pool
        self._threads = ThreadPoolExecutor(pool.size, "decode")
        self._group_bytes = group_bytes
        self._most_groups = 2 * pool.size  # of one caller in the queue; the others wait, unread

    def start(self) -> None:
        """Starts the processes, so that the first images need not wait for them."""
        self._pool.start()

    def close(self) -> None:
        """Cancels waiting work, and ends decoding in progress with Unavailable."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pool.close()

    def decode(self, read: Callable[[], bytes], model: Model) -> Future[DecodedImage]:
        """Reads and decodes one image for a model. The future may raise ImageError."""
        budget = wait_budget.current()
        return self._submit(lambda: _only(self._decode([read()], [model], budget.work)), budget)

    def decode_all(
        self, uploads: Iterable[bytes], models: Collection[Model]
    ) -> list[DecodedImage | ImageError]:
        """Decodes images for some models, in parallel; an error takes the place of its image.

        ``uploads`` is read as processes become free.
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
                (budget, self._submit(partial(self._decode, group, models, budget.work), budget))
            )
            # Only the first group is subject to the caller's budget.
            budget = WaitBudget(math.inf, budget.work)
            if len(decoding) == self._most_groups:
                take_next()
        while decoding:
            take_next()
        return decoded

    def thumbnail(self, data: bytes) -> bytes:
        """Returns a WebP of at most THUMBNAIL_PIXELS a side. Raises ImageError."""
        budget, task = wait_budget.current(), Task(thumbnail=THUMBNAIL_PIXELS)
        shrunk = self._submit(lambda: _only(self._pool.run(task, [data], budget.work)), budget)
        return budget.result_of(shrunk).data

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

    def _decode(
        self, uploads: Sequence[bytes], models: Collection[Model], work: Work
    ) -> list[DecodedImage | ImageError]:
        rules = {model.id: (model.rules.size, model.rules.shrink_to) for model in models}
        inputs = tuple(dict.fromkeys(rules.values()))
        outputs = self._pool.run(Task(inputs), uploads, work)
        return [
            each if isinstance(each, ImageError) else _decoded(each, inputs, rules)
            for each in outputs
        ]


def open_decoder(
    settings: Settings,
    group_bytes: int = GROUP_BYTES,
    killed: Callable[[], object] = lambda: None,
) -> Decoder:
    """Returns a decoder with the limits of the settings; ``killed``: as for DecodePool."""
    limits = ProcessLimits(
        settings.decode_seconds,
        settings.max_pixels,
        BASE_BYTES + 2 * settings.max_body_bytes + BYTES_PER_PIXEL * settings.max_pixels,
    )
    return Decoder(DecodePool(settings.decode_threads, limits, killed), group_bytes)


def _decoded(output: Output, inputs: Sequence[Input], rules: Mapping[str, Input]) -> DecodedImage:
    pixels, place = {}, 0
    for each in inputs:
        size = each[0]
        flat = np.frombuffer(output.data, np.uint8, 3 * size * size, place)
        pixels[each], place = flat.reshape(3, size, size), place + flat.size
    return DecodedImage(
        output.width, output.height, {id: pixels[each] for id, each in rules.items()}
    )


def _only(outcomes: list[T | ImageError]) -> T:
    """Returns the one outcome, or raises it."""
    (outcome,) = outcomes
    if isinstance(outcome, ImageError):
        raise outcome
    return outcome
