"""Uploaded bytes -> pixels -> codes and look-up tables of models, off the event loop."""

import io
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from gpq import scan
from gpq.engine.fallback import Fallback
from gpq.errors import BrokenImage, ImageError
from gpq.model.model import Model
from gpq.pixels import decode
from gpq.system import memory
from service import problems
from service.concurrency import deadlines
from service.concurrency.batcher import Batcher
from service.concurrency.deadlines import Patience
from service.concurrency.groups import groups
from service.problems import Problem
from service.settings import THUMBNAIL_PIXELS
from service.telemetry import timing

# Pictures of searches through the network at once: on the CPU more gain little, and keep the
# first ones waiting.
BATCHES = {"cpu": 8, "cuda": 64}
# Of a batch, where that is more: of a ResNet-50, whose memory is kept from one to the next.
BATCH_PIXELS = 8 * 224 * 224
GROUP, GROUP_BYTES = 8, 16_384  # pictures that a thread decodes at a time
IMPORT_GROUP_BYTES = 2**20  # of many callers, who need not be quick
LARGE_PIXELS = 4_000_000  # of a picture whose memory goes back to the system at once

Wanted = tuple[Literal["codes", "luts"], str]  # of the model of that id
Prepared = tuple[Model, NDArray[np.uint8]]
R = TypeVar("R")


@dataclass(frozen=True)
class Picture:
    """A decoded upload: its full size and, by each model's id, the (3,S,S) uint8 that the
    model's network sees."""

    width: int
    height: int
    pixels: Mapping[str, NDArray[np.uint8]]


class Encoder:
    """Pictures are decoded by few threads: that bounds memory whatever is uploaded. Those of
    requests at the same time go through the network together, as many as pays on the device.
    What a search asks for comes as a future or by a coroutine: it holds no thread while it waits.

    models: by their ids. Calls under way go on with those they began with. together: pictures
    that may be encoded at once, where these are small, and nobody waits for the first of them.
    networks: calls that are encoded at the same time, on the CPU, each by encode_threads.
    group_bytes: of a caller's pictures that one thread decodes, in groups of at most 8.
    """

    def __init__(
        self,
        max_pixels: int,
        decode_threads: int,
        encode_threads: int,
        watch: Callable[[int], object] = lambda n: None,
        watch_full: Callable[[], object] = lambda: None,
        device: str = "cpu",
        together: int = 0,
        networks: int = 1,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        self.models: Mapping[str, Model] = {}
        self.max_pixels = max_pixels
        self._watch = watch
        self._device = torch.device(device)
        self._fallback = Fallback(watch_full)
        self._decoding = ThreadPoolExecutor(decode_threads, "decode")
        self._group_bytes = group_bytes
        self._most_decoding = 2 * decode_threads  # of one caller: the others wait, unread
        self.networks = networks if device == "cpu" else 1  # ``Fallback`` takes one at a time
        self._most = max(together, BATCHES[device])
        self._network: Batcher[Wanted, Prepared, Any] = Batcher(
            "encode",
            self._compute,
            BATCHES[device],
            self.networks,
            partial(torch.set_num_threads, encode_threads),
        )

    def close(self) -> None:
        """What has begun comes to its end; nothing waits for that."""
        self._decoding.shutdown(wait=False, cancel_futures=True)
        self._network.close()

    def learn(self, model: Model) -> None:
        """One that is on the CPU, for want of room, goes to the device when there is some."""
        if model.device.type != self._device.type:
            model = self._fallback.begin_on_cpu(model, self._device)
        self.models = {**self.models, model.id: model}

    def forget(self, id: str) -> None:
        self.models = {known: model for known, model in self.models.items() if known != id}
        self._fallback.forget(id)

    def decode(self, read: Callable[[], bytes], model: Model) -> Future[Picture]:
        """Of what a decoding thread reads. The future raises gpq.errors.ImageError, Problem 503
        where it waits too long."""
        return self._begin(lambda: self._decode(read(), [model]), deadlines.current())

    def accept(
        self, uploads: Iterable[bytes], models: Collection[Model]
    ) -> list[Picture | Problem]:
        """``decode`` for uploads, side by side; what is wrong with one stands in its place.

        They are read as there is room. Raises Problem 503 where it waits too long.
        """
        accepted: list[Picture | Problem] = []
        decoding: deque[tuple[Patience, Future[list[Picture | Problem]]]] = deque()

        def accept_next() -> None:
            waits, under_way = decoding.popleft()
            group = waits.result_of(under_way)
            accepted.extend(group)

        waits = deadlines.current()
        # Together: handing over a small one takes as long as decoding it.
        for group in groups(uploads, GROUP, len, self._group_bytes):
            decoding.append((waits, self._begin(partial(self._accept, group, models), waits)))
            waits = Patience(math.inf)  # the others wait for the first ones
            if len(decoding) == self._most_decoding:
                accept_next()
        while decoding:
            accept_next()
        return accepted

    def thumbnail(self, data: bytes) -> bytes:
        """WebP of at most THUMBNAIL_PIXELS a side; raises as ``decode``."""
        waits = deadlines.current()
        return waits.result_of(self._begin(partial(self._shrink, data), waits))

    def encode(self, pictures: Sequence[Picture], model: Model) -> list[bytes]:
        """Packed codes of ceil(M/2) bytes each."""
        most = min(self._most, max(self._network.most, BATCH_PIXELS // model.rules.size**2))
        prepared = _prepared(pictures, model)
        codes: list[bytes] = []
        for first in range(0, len(prepared), most):
            if first:
                deadlines.current().hold_out()
            part = self._network.ask(("codes", model.id), prepared[first : first + most])
            encoded: Sequence[bytes] = deadlines.current().result_of(part)
            codes += encoded
        return codes

    def lut(self, picture: Picture, model: Model) -> Future[Sequence[NDArray[np.float32]]]:
        """One of (M,K) float32."""
        return self._network.ask(("luts", model.id), _prepared([picture], model))

    async def luts(self, pictures: Sequence[Picture], model: Model) -> list[NDArray[np.float32]]:
        """(M,K) float32 of each."""
        return await self._network.ask_all(("luts", model.id), _prepared(pictures, model))

    def lut_of_code(self, code: bytes, model: Model) -> NDArray[np.float32]:
        """(1,M,K) float32 of a stored code."""
        return model.lut_of_code(np.frombuffer(code, dtype=np.uint8)[None].copy())

    def _begin(self, work: Callable[[], R], waits: Patience) -> Future[R]:
        asked, spent = time.perf_counter(), timing.current()

        def begin() -> R:
            began = time.perf_counter()
            timing.add("queue", began - asked, spent)
            waits.spend(began - asked)
            try:
                return work()
            finally:
                timing.add("decode", time.perf_counter() - began, spent)

        return self._decoding.submit(begin)

    def _accept(
        self, uploads: Sequence[bytes], models: Collection[Model]
    ) -> list[Picture | Problem]:
        accepted: list[Picture | Problem] = []
        for data in uploads:
            try:
                accepted.append(self._decode(data, models))
            except ImageError as error:
                accepted.append(problems.of_image(error))
        return accepted

    def _decode(self, data: bytes, models: Collection[Model]) -> Picture:
        scales = {model.rules.shrink_to for model in models}
        with _large_given_back() as sizes:
            decoded = {scale: decode.decode(data, self.max_pixels, scale) for scale in scales}
            pixels = {m.id: m.prepare(decoded[m.rules.shrink_to].image) for m in models}
            whole = decoded.popitem()[1]
            sizes += [whole.width, whole.height]
            del decoded, whole
        width, height = sizes
        return Picture(width, height, pixels)

    def _shrink(self, data: bytes) -> bytes:
        buffer = io.BytesIO()
        with _large_given_back() as sizes:
            whole = decode.decode(data, self.max_pixels, shrink_to=THUMBNAIL_PIXELS)
            whole.image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
            whole.image.save(buffer, "WEBP")
            sizes += [whole.width, whole.height]
            del whole
        return buffer.getvalue()

    def _compute(self, wanted: Wanted, prepared: Sequence[Prepared]) -> Sequence[Any]:
        self._watch(len(prepared))
        model = prepared[0][0]
        pixels = np.stack([of_one for _, of_one in prepared])
        with timing.stage("encode"):
            compute = Model.encode if wanted[0] == "codes" else Model.lut
            found = self._fallback.run(compute, model, pixels)
        return [row.tobytes() for row in found] if wanted[0] == "codes" else list(found)


@contextmanager
def _large_given_back() -> Iterator[list[int]]:
    """The memory of a large picture, width and height of which are put into the list, or of a
    broken one goes back to the system at its end."""
    sizes: list[int] = []
    try:
        yield sizes
    except BrokenImage:
        memory.give_back()
        raise
    if math.prod(sizes) > LARGE_PIXELS:
        memory.give_back()


def _prepared(pictures: Sequence[Picture], model: Model) -> list[Prepared]:
    return [(model, picture.pixels[model.id]) for picture in pictures]


def scores(luts: NDArray[np.float32], codes: Sequence[bytes]) -> NDArray[np.float32]:
    """(Q,n) float32: what a scan with each of ``luts`` (Q,M,K) gives these codes."""
    out = np.empty((len(luts), len(codes)), dtype=np.float32)
    if codes:
        packed = np.frombuffer(b"".join(codes), np.uint8).reshape(len(codes), -1)
        scanner = scan.build(packed, luts.shape[1], "reference")
        rows, found = scanner.search(luts, len(codes))
        np.put_along_axis(out, rows, found, axis=1)
    return out
