"""Uploaded bytes -> pixels -> codes and look-up tables of models, off the event loop."""

import io
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpq import decode, scan
from gpq.errors import ImageError
from gpq.model import Model
from service import problems
from service.problems import Problem
from service.settings import THUMBNAIL_PIXELS

BATCH = 64  # pictures through the network at once


@dataclass(frozen=True)
class Picture:
    """A decoded upload: its full size and, by each model's id, the (3,S,S) uint8 that the
    model's network sees."""

    width: int
    height: int
    pixels: Mapping[str, NDArray[np.uint8]]


class Encoder:
    """Few pictures are decoded at a time: that bounds memory whatever is uploaded.

    models: by their ids. Calls under way go on with those they began with.
    """

    def __init__(self, max_pixels: int, decode_threads: int) -> None:
        self.models: Mapping[str, Model] = {}
        self.max_pixels = max_pixels
        self._decoding = threading.BoundedSemaphore(decode_threads)
        self._computing = threading.Lock()  # torch uses all cores for one call

    def learn(self, model: Model) -> None:
        self.models = {**self.models, model.id: model}

    def forget(self, id: str) -> None:
        self.models = {known: model for known, model in self.models.items() if known != id}

    def decode(self, data: bytes, models: Collection[Model]) -> Picture:
        """For these models; raises gpq.errors.ImageError."""
        with self._decoding:
            image = decode.load(data, self.max_pixels)
            pixels = {model.id: model.prepare(image) for model in models}
            return Picture(image.width, image.height, pixels)

    def accept(self, data: bytes, models: Collection[Model]) -> Picture:
        """``decode`` for an upload; raises Problem 400, 413 or 415."""
        if not data:
            raise Problem(400, "empty-file", "the file is empty")
        try:
            return self.decode(data, models)
        except ImageError as error:
            raise problems.of_image(error) from error

    def thumbnail(self, data: bytes) -> bytes:
        """WebP of at most THUMBNAIL_PIXELS a side; raises gpq.errors.ImageError."""
        with self._decoding:
            image = decode.load(data, self.max_pixels, shrink_to=THUMBNAIL_PIXELS)
            image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP")
        return buffer.getvalue()

    def encode(self, pictures: Sequence[Picture], model: Model) -> list[bytes]:
        """Packed codes of ceil(M/2) bytes each."""
        codes: list[bytes] = []
        for first in range(0, len(pictures), BATCH):
            pixels = np.stack([p.pixels[model.id] for p in pictures[first : first + BATCH]])
            with self._computing:
                packed = model.encode(pixels)
            codes += [row.tobytes() for row in packed]
        return codes

    def luts(self, pictures: Sequence[Picture], model: Model) -> NDArray[np.float32]:
        """(Q,M,K) float32, for at least one picture."""
        tables = []
        for first in range(0, len(pictures), BATCH):
            pixels = np.stack([p.pixels[model.id] for p in pictures[first : first + BATCH]])
            with self._computing:
                tables.append(model.lut(pixels))
        return np.concatenate(tables)

    def lut_of_code(self, code: bytes, model: Model) -> NDArray[np.float32]:
        """(1,M,K) float32 of a stored code."""
        with self._computing:
            return model.lut_of_code(np.frombuffer(code, dtype=np.uint8)[None].copy())


def scores(luts: NDArray[np.float32], codes: Sequence[bytes]) -> NDArray[np.float32]:
    """(Q,n) float32: what a scan with each of ``luts`` (Q,M,K) gives these codes."""
    out = np.empty((len(luts), len(codes)), dtype=np.float32)
    if codes:
        packed = np.frombuffer(b"".join(codes), np.uint8).reshape(len(codes), -1)
        scanner = scan.build(packed, luts.shape[1], "reference")
        rows, found = scanner.search(luts, len(codes))
        np.put_along_axis(out, rows, found, axis=1)
    return out
