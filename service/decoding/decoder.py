"""Hands images to decoding processes, in groups."""

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpq.errors import BrokenImage, ImageError
from gpq.model.model import Model
from gpq.pixels.perceptual import HASH_BYTES
from service.concurrency import wait_budget
from service.concurrency.batcher import Batcher
from service.concurrency.futures import Step, done, result_of, then
from service.concurrency.groups import groups
from service.concurrency.wait_budget import WaitBudget
from service.concurrency.work import Work
from service.database.records import CopyHash
from service.decoding.pool import DecodePool
from service.decoding.process import Made, ProcessLimits
from service.decoding.task import Input, Later, Output, Region, Task
from service.settings import Settings
from service.telemetry import timing

THUMBNAIL_PIXELS = 256  # longer side of a thumbnail
GROUP, GROUP_BYTES = 8, 65_536  # small images that a process decodes at a time
IMPORT_GROUP_BYTES = 2**20  # for an import, which has many callers and no hurry
# Memory of a process beyond its program: the file, perhaps twice, and copies of the pixels.
BASE_BYTES, BYTES_PER_PIXEL = 128 * 2**20, 10

T = TypeVar("T")


@dataclass(frozen=True)
class DecodedImage:
    """An image: its full size, and the (3,S,S) uint8 pixels that each model sees, by model id.

    ``copy_hash``: if it was asked for.
    """

    width: int
    height: int
    pixels: Mapping[str, NDArray[np.uint8]]
    copy_hash: CopyHash | None = None


@dataclass(frozen=True)
class _File:
    """A file to decode. ``size``: its bytes."""

    read: Callable[[], bytes]
    size: int
    work: Work

    @property
    def weight(self) -> int:
        return max(self.size, GROUP_BYTES // GROUP)


class Decoder:
    """Decodes with few processes, which bounds memory whatever is uploaded.

    ``group_bytes``: how many bytes of one caller a process decodes at a time, in groups of at most
    GROUP images. Methods raise WaitedTooLong if no process begins within the wait budget, and
    ClientGone if the work is abandoned.
    """

    def __init__(self, pool: DecodePool, group_bytes: int = GROUP_BYTES) -> None:
        self._pool = pool
        # In groups, because handing over a small image takes as long as decoding it.
        self._groups: Batcher[Task, _File, Made] = Batcher(
            "decode", self._run, GROUP_BYTES, pool.size, lambda file: file.weight
        )
        self._large: Batcher[Task, _File, Output | ImageError] = Batcher(
            "decode-large", self._run_large, 1
        )
        self._group_bytes = group_bytes
        self._most_groups = 2 * pool.size  # of one caller in the queue; the others wait, unread

    def start(self) -> None:
        """Starts the processes, so that the first images need not wait for them."""
        self._pool.start()

    def close(self) -> None:
        """Cancels waiting work, and ends decoding in progress with Unavailable."""
        self._groups.close()
        self._large.close()
        self._pool.close()

    async def decode(
        self,
        read: Callable[[], bytes],
        size: int,
        model: Model,
        *steps: Step,
        region: Region | None = None,
    ) -> Any:
        """Decodes one image of ``size`` bytes for a model, and takes it through further steps.

        ``region``: the part that the model sees. The first step gets the DecodedImage; see
        ``result_of``. Raises ImageError.
        """
        task = _task([model], region)
        file = _File(read, size, wait_budget.current().work)

        def settle(made: Sequence[Made]) -> Future[Sequence[Output | ImageError]]:
            return self._settled(task, [file], made)

        def first_step(made: Sequence[Output | ImageError]) -> Future[Any]:
            return steps[0](_decoded(_only(made), task, [model]))

        group = self._groups.submit(task, [file])
        return await result_of(group, settle, first_step, *steps[1:])

    def decode_one(self, data: bytes, model: Model, region: Region | None = None) -> DecodedImage:
        """Decodes one image for a model, as ``decode``. Raises ImageError."""
        return _only(self.decode_all([data], [model], region))

    def decode_all(
        self,
        uploads: Iterable[bytes],
        models: Collection[Model],
        region: Region | None = None,
        copy_hash: bool = False,
    ) -> list[DecodedImage | ImageError]:
        """Decodes images for some models, in parallel; an error takes the place of its image.

        ``uploads`` is read as processes become free. ``region``: the part that the models see.
        ``copy_hash``: whether to compute perceptual hashes.
        """
        budget, task = wait_budget.current(), _task(models, region, copy_hash)
        later = WaitBudget(math.inf, budget.work)
        decoded: list[DecodedImage | ImageError] = []
        decoding: deque[tuple[WaitBudget, list[_File], Future[Sequence[Made]]]] = deque()

        def take_next() -> None:
            waits, files, group = decoding.popleft()
            made = waits.result_of(group)
            with wait_budget.spending(later):  # what has begun is finished
                settled = later.result_of(self._settled(task, files, made))
            decoded.extend(
                each if isinstance(each, ImageError) else _decoded(each, task, models)
                for each in settled
            )

        for group in groups(uploads, GROUP, len, self._group_bytes):
            files = [_File(partial(bytes, data), len(data), budget.work) for data in group]
            # Only the first group is subject to the caller's budget.
            waits = later if decoding or decoded else budget
            with wait_budget.spending(waits):
                decoding.append((waits, files, self._groups.submit(task, files)))
            if len(decoding) == self._most_groups:
                take_next()
        while decoding:
            take_next()
        return decoded

    def thumbnail(self, data: bytes) -> bytes:
        """Returns a WebP of at most THUMBNAIL_PIXELS a side. Raises ImageError."""
        budget, task = wait_budget.current(), Task(thumbnail=THUMBNAIL_PIXELS)
        file = _File(lambda: data, len(data), budget.work)
        made = budget.result_of(self._groups.submit(task, [file]))
        return _only(budget.result_of(self._settled(task, [file], made))).data

    def _settled(
        self, task: Task, files: Sequence[_File], made: Sequence[Made]
    ) -> Future[Sequence[Output | ImageError]]:
        """Decodes the images that had to wait, one after the other; the future has all."""
        pairs = zip(files, made, strict=True)
        waiting = [file for file, each in pairs if isinstance(each, Later)]
        if not waiting:
            return done(made)
        submitted = self._large.submit(task, waiting)
        return then(submitted, lambda found: _filled(made, found))

    def _run_large(self, task: Task, files: Sequence[_File]) -> list[Output | ImageError]:
        with timing.stage("decode"):
            return [self._wait(task, file) for file in files]

    def _wait(self, task: Task, file: _File) -> Output | ImageError:
        data = _content(file)
        return self._pool.run_waiting(task, data, file.work) if isinstance(data, bytes) else data

    def _run(self, task: Task, files: Sequence[_File]) -> list[Made]:
        with timing.stage("decode"):
            read = [_content(file) for file in files]
            whole = [data for data in read if isinstance(data, bytes)]
            works = [f.work for f, data in zip(files, read, strict=True) if isinstance(data, bytes)]
            made = iter(self._pool.run(task, whole, works) if whole else [])
            return [next(made) if isinstance(data, bytes) else data for data in read]


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


def _content(file: _File) -> bytes | ImageError:
    """Reads a file. The upload of a client that is gone may be closed already."""
    try:
        return file.read()
    except (OSError, ValueError) as error:
        return BrokenImage(f"the upload cannot be read: {error}")


def _task(models: Iterable[Model], region: Region | None, copy_hash: bool = False) -> Task:
    return Task(tuple(dict.fromkeys(map(_input, models))), region=region, copy_hash=copy_hash)


def _input(model: Model) -> Input:
    return model.rules.size, model.rules.shrink_to


def _decoded(output: Output, task: Task, models: Iterable[Model]) -> DecodedImage:
    pixels, place = {}, 0
    for each in task.inputs:
        size = each[0]
        flat = np.frombuffer(output.data, np.uint8, 3 * size * size, place)
        pixels[each], place = flat.reshape(3, size, size), place + flat.size
    by_model = {model.id: pixels[_input(model)] for model in models}
    found = None
    if task.copy_hash:
        found = CopyHash(output.data[place : place + HASH_BYTES], output.data[place + HASH_BYTES])
    return DecodedImage(output.width, output.height, by_model, found)


def _filled(
    made: Sequence[Made], found: Sequence[Output | ImageError]
) -> list[Output | ImageError]:
    """Puts what was found in the places of those that had to wait."""
    rest = iter(found)
    return [next(rest) if isinstance(each, Later) else each for each in made]


def _only(outcomes: Sequence[T | ImageError]) -> T:
    """Returns the one outcome, or raises it."""
    (outcome,) = outcomes
    if isinstance(outcome, ImageError):
        raise outcome
    return outcome
