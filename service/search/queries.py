"""Reads what is searched for: uploads, and stored images as pixels or as codewords."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpq.errors import ImageError
from gpq.model.model import Model
from service.database.images import ImageTable
from service.database.records import StoredImage
from service.decoding.decoder import DecodedImage, Decoder
from service.decoding.task import Region
from service.errors import ModelChanged, NoOriginal, NoSuchImage, Unavailable, WaitedTooLong
from service.originals.originals import Originals
from service.search.exact import scores
from service.search.examples import Example
from service.search.hit import Hit

Query = DecodedImage | NDArray[np.float32]  # pixels, or features (D,)
log = logging.getLogger("gpq.service")


@dataclass(frozen=True)
class StoredQuery:
    """A stored image as a query: its pixels, or the codewords (D,) of its code.

    ``sha256``: of its bytes.
    """

    query: Query
    sha256: str


class Queries:
    """Reads queries. All methods block; they raise NoSuchImage, ModelChanged if the model was
    deleted, WaitedTooLong, Unavailable."""

    def __init__(self, images: ImageTable, originals: Originals, decoder: Decoder) -> None:
        self.images, self.originals, self.decoder = images, originals, decoder

    def stored(self, id: str, model: Model, region: Region | None = None) -> StoredQuery:
        """Decodes the original of an image; if it cannot be read, uses the codewords of its code.

        Raises NoOriginal if a region is wanted and the original cannot be read.
        """
        image = self._get(id)
        try:
            data = self.originals.get(image.sha256)
            if data is not None:
                decoded = self.decoder.decode_one(data, model, region)
                return StoredQuery(decoded, image.sha256)
        except WaitedTooLong:
            raise
        except (ImageError, Unavailable) as error:
            if region is not None and isinstance(error, Unavailable):
                raise
            # The limits were lowered, the file was damaged, or the store does not answer.
            log.warning("original %s cannot be read: %s", image.sha256, error)
        if region is not None:
            raise NoOriginal(id)
        return StoredQuery(model.decode(self._code_of(image, model)), image.sha256)

    def own_hit(self, id: str, lut: NDArray[np.float32], model: Model) -> Hit:
        image = self._get(id)
        score = float(scores(lut[None], [self._code_of(image, model)])[0, 0])
        return Hit(id, score, image.metadata, image.seq)

    def _get(self, id: str) -> StoredImage:
        image = self.images.get(id)
        if image is None:
            raise NoSuchImage(id)
        return image

    def _code_of(self, image: StoredImage, model: Model) -> bytes:
        """Returns the code of an image, even if the image was replaced since it was read.

        Raises ModelChanged if the model was deleted, NoSuchImage if the image was.
        """
        code = self.images.code(image.seq, model.id)
        if code is None:
            code = self.images.code(self._get(image.id).seq, model.id)
        if code is None:
            raise ModelChanged(f"image {image.id!r} has no code under model {model.id}")
        return code

    def of_examples(
        self, examples: Sequence[Example], model: Model
    ) -> tuple[list[Query], list[str]]:
        """Returns the pixels or the codewords of each example, and the sha256 of its bytes."""
        queries: list[Query] = []
        hashes = []
        for example in examples:
            if isinstance(example.query, str):
                stored = self.stored(example.query, model)
                queries.append(stored.query)
                hashes.append(stored.sha256)
            else:
                data = read(example.query)
                queries.append(self.decoder.decode_one(data, model))
                hashes.append(hashlib.sha256(data).hexdigest())
        return queries, hashes

    def ids_of_bytes(self, hashes: Sequence[str]) -> set[str]:
        """Returns the ids of the stored images with these sha256."""
        return {id for sha256 in hashes for id in self.images.ids_of(sha256)}

    def ids_of_uploads(self, files: Sequence[BinaryIO]) -> list[set[str]]:
        """Returns, for each upload, the ids of the stored images with the same bytes."""
        return [self.images.ids_of(hashlib.sha256(read(file)).hexdigest()) for file in files]


def read(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()
