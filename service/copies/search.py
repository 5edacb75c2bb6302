"""Searches for copies of uploads and of stored images."""

from typing import BinaryIO

from gpq.errors import ImageError
from service.copies.copies import Chosen, Copies, CopyAnswer
from service.database.copies import LEAST_QUALITY
from service.database.records import CopyHash
from service.database.store import Store
from service.decoding.decoder import Decoder
from service.errors import NoOriginal, NoSuchImage
from service.originals.originals import Originals


class CopySearch:
    """Methods block. They raise WaitedTooLong, Unavailable, SQLAlchemyError."""

    def __init__(
        self, store: Store, copies: Copies, originals: Originals, decoder: Decoder
    ) -> None:
        self.store, self.copies = store, copies
        self.originals, self.decoder = originals, decoder

    def of_upload(
        self, file: BinaryIO, distance: int, most: int, chosen: Chosen
    ) -> tuple[CopyAnswer, CopyHash]:
        """Returns the stored copies of an upload, and its hash. Raises ImageError."""
        file.seek(0)
        hash = self._hash(file.read())
        return self.copies.find(hash, distance, most, chosen), hash

    def of_image(
        self, id: str, distance: int, most: int, chosen: Chosen
    ) -> tuple[CopyAnswer, CopyHash]:
        """Returns the stored copies of a stored image, without itself, and its hash.

        Raises NoSuchImage; NoOriginal if there is no hash and no original that can be read.
        """
        image = self.store.images.get(id)
        if image is None:
            raise NoSuchImage(id)
        hash = self.copies.of_image(id)
        if hash is None:
            data = self.originals.get(image.sha256)
            if data is None:
                raise NoOriginal(id)
            try:
                hash = self._hash(data)
            except ImageError as error:
                raise NoOriginal(id) from error
        others = self.copies.find(
            hash, distance, most, lambda found: found.id != id and chosen(found)
        )
        return others, hash

    def _hash(self, data: bytes) -> CopyHash:
        (decoded,) = self.decoder.decode_all([data], [], copy_hash=True)
        if isinstance(decoded, ImageError):
            raise decoded
        assert decoded.copy_hash is not None  # it was asked for
        return decoded.copy_hash


def is_plain(hash: CopyHash) -> bool:
    """Returns whether an image is too plain to be compared."""
    return hash.quality < LEAST_QUALITY
