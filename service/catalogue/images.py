"""Reads, describes and deletes stored images."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from gpq.errors import ImageError
from gpq.pixels import formats
from service.database.records import CodeCounts, StoredImage
from service.database.store import Store
from service.decoding.decoder import Decoder
from service.errors import NoOriginal, NoSuchImage, NoThumbnail
from service.filters.selection import Selection
from service.index.follower import FeedFollower
from service.models.classes import ClassShare, classes_of, names_of
from service.models.encoder import Encoder
from service.originals.keys import Parts
from service.originals.originals import Originals
from service.settings import ID_PATTERN

READ_TOGETHER, MOST_READ = 1_000, 50_000  # images read for one page of a selection


@dataclass(frozen=True)
class ImageFile:
    """An original or its thumbnail, ready to send. ``sha256``: of the original."""

    sha256: str
    media_type: str
    content: Parts | bytes


@dataclass(frozen=True)
class ImagePage:
    """Images in seq order. ``next``: the seq after which the next page begins; None at the end."""

    images: list[StoredImage]
    next: int | None


class Catalogue:
    """The stored images. All methods block; call them off the event loop."""

    def __init__(
        self,
        store: Store,
        follower: FeedFollower,
        decoder: Decoder,
        encoder: Encoder,
        originals: Originals,
    ) -> None:
        self.store, self.follower = store, follower
        self.decoder, self.encoder, self.originals = decoder, encoder, originals
        self._counted = (-1, ""), CodeCounts(0, 0, 0)

    def get(self, id: str) -> StoredImage:
        """Returns an image. Raises NoSuchImage."""
        image = self.store.images.get(id) if re.fullmatch(ID_PATTERN, id) else None
        if image is None:
            raise NoSuchImage(id)
        return image

    def tags(self, image: StoredImage) -> tuple[ClassShare, ...]:
        """Returns the classes of the active model that the code of an image resembles."""
        model = self.encoder.models.get(self.follower.model)
        if model is None or not names_of(model):
            return ()
        code = self.store.images.code(image.seq, model.id)
        return () if code is None else classes_of(model.decode(code), model)

    def page(self, after: int, limit: int, selection: Selection) -> ImagePage:
        """Returns at most ``limit`` images of a selection in seq order, after seq ``after``.

        Reads MOST_READ images at most, so a page may have fewer although others follow.
        """
        if selection.is_everything:
            images = self.store.images.page(after, limit)
            return ImagePage(images, images[-1].seq if len(images) == limit else None)
        found: list[StoredImage] = []
        for _ in range(MOST_READ // READ_TOGETHER):
            part = self.store.images.page(after, READ_TOGETHER)
            for image in part:
                if selection.has(image.id, image.metadata):
                    found.append(image)
                    if len(found) == limit:
                        return ImagePage(found, image.seq)
            if len(part) < READ_TOGETHER:
                return ImagePage(found, None)
            after = part[-1].seq
        return ImagePage(found, after)

    def code_counts(self, head: int) -> CodeCounts:
        """Counts the codes of the active model, at feed number ``head`` or later.

        Counts again only if the feed has moved or another model is active.
        """
        model = self.follower.model
        if self._counted[0] != (head, model):
            self._counted = (head, model), self.store.images.code_counts(model)
        return self._counted[1]

    def describe(self, id: str, metadata: str | None) -> StoredImage:
        """Replaces the metadata of an image. Raises NoSuchImage."""
        if not re.fullmatch(ID_PATTERN, id) or not self.store.images.describe(id, metadata):
            raise NoSuchImage(id)
        return self.get(id)

    def delete(self, id: str) -> None:
        """Deletes an image; no later search in this process finds it.

        Raises NoSuchImage, and ModelChanged if the index of the active model is missing here.
        """
        seq = self.store.images.delete(id) if re.fullmatch(ID_PATTERN, id) else None
        if seq is None:
            raise NoSuchImage(id)
        self.follower.catch_up(seq)

    def content(self, id: str) -> ImageFile:
        """Returns the original of an image. Raises NoSuchImage, NoOriginal."""
        image = self.get(id)
        content = self.originals.parts(image.sha256)
        if content is None:
            raise NoOriginal(id)
        media_type = formats.media_type(content.first) or "application/octet-stream"
        return ImageFile(image.sha256, media_type, content)

    def thumbnail(self, id: str, known: Callable[[str], bool]) -> ImageFile:
        """Returns a small WebP; it is empty if the client knows it.

        ``known``: tells whether the client has the thumbnail of the original with a sha256.

        Raises NoSuchImage, NoOriginal, NoThumbnail.
        """
        image = self.get(id)
        data = self.originals.get(image.sha256)
        if data is None:
            raise NoOriginal(id)
        try:
            small = b"" if known(image.sha256) else self.decoder.thumbnail(data)
            return ImageFile(image.sha256, "image/webp", small)
        except ImageError as error:  # the limits were lowered, or the file was damaged
            raise NoThumbnail(f"the original of {image.id!r} cannot be decoded: {error}") from error
