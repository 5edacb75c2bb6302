"""Stores images. ``ImageWriter.put`` takes uploads through these steps:

1. ``Ingest.prepare``   checks each upload and decodes it for every model
2. ``_distinct``        picks the images to store; an id may occur only once in a request
3. ``Ingest.encode``    computes each image's code under every model
4. ``Ingest.keep``      writes the originals durably
5. ``ImageTable.put``   writes rows, codes and feed entries in one transaction
6. ``FeedFollower.catch_up``   adds the codes to the index of this process

An import (``service.jobs.importing``) takes its batches through steps 1, 3, 4 and 5.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import SEEK_END
from typing import BinaryIO, Literal

from gpq.errors import ImageError
from gpq.model.model import Model
from service.concurrency.groups import groups
from service.copies.copies import Copies, Copy, among
from service.database.records import KEEP, CopyHash, Keep, Put, Status, StoredImage
from service.database.store import Store
from service.decoding.decoder import DecodedImage, Decoder
from service.errors import (
    CopiesOff,
    DuplicateId,
    InvalidId,
    ModelChanged,
    ServiceError,
    Unavailable,
)
from service.index.follower import FeedFollower
from service.models.encoder import Encoder
from service.models.loader import ModelLoader
from service.originals.originals import Originals
from service.settings import ID_PATTERN
from service.telemetry import timing

DEFAULT_ID_DIGITS = 32
MOST_COPIES = 10  # that the reply lists for an image
KEPT_TOGETHER, KEPT_BYTES = 16, 2**21  # originals written together: a group ends at either
UNADDRESSABLE_IDS = (".", "..")  # clients turn /images/.. into another path
PUT_TRIES = 4

Rejection = ServiceError | ImageError


@dataclass(frozen=True)
class Upload:
    """One image to store.

    ``name``: file name, repeated in the reply only. ``id``: if None, it is derived from the bytes.
    ``metadata``: as in ``Put``. ``error``: why there is no file to read, if so.
    """

    file: BinaryIO
    name: str
    id: str | None
    metadata: str | Keep | None = KEEP
    error: Rejection | None = None


@dataclass(frozen=True)
class PreparedImage:
    """A checked and decoded upload. ``put`` has no codes yet."""

    upload: Upload
    put: Put
    image: DecodedImage


@dataclass(frozen=True)
class PutResult:
    """The result of one upload.

    ``error``: why it failed, if it did. ``copies``: images that it is a copy of, if that was asked
    for; it is skipped because of them, or stored beside them.
    """

    file: str
    id: str | None
    status: Status | Literal["failed", "skipped"]
    error: Rejection | None = None
    copies: tuple[Copy, ...] | None = None


@dataclass(frozen=True)
class Duplicates:
    """What to do with copies of images that are stored, or that come before in the same request.

    ``skip``: whether they are not stored. ``distance``: of their hashes, at most. ``prefix``: of
    the ids of the images that are looked at.
    """

    skip: bool
    distance: int
    prefix: str = ""


class Ingest:
    """Prepares images for storing. All methods block; call them off the event loop.

    ``copy_hashes``: whether to compute perceptual hashes.
    """

    def __init__(
        self, decoder: Decoder, encoder: Encoder, originals: Originals, copy_hashes: bool = False
    ) -> None:
        self.decoder, self.encoder, self.originals = decoder, encoder, originals
        self.copy_hashes = copy_hashes

    def prepare(
        self, uploads: Sequence[Upload], models: Collection[Model]
    ) -> list[PreparedImage | Rejection]:
        """Checks and decodes uploads, in parallel. For a refused upload the list holds its error.

        Raises WaitedTooLong.
        """
        present = [upload for upload in uploads if upload.error is None]
        hashes: list[str] = []

        def contents() -> Iterator[bytes]:
            for upload in present:
                data = _read(upload)
                hashes.append(hashlib.sha256(data).hexdigest())
                yield data

        decoded = self.decoder.decode_all(contents(), models, copy_hash=self.copy_hashes)
        prepared = iter(
            image if isinstance(image, ImageError) else _prepared(upload, sha256, image)
            for upload, sha256, image in zip(present, hashes, decoded, strict=True)
        )
        return [upload.error or next(prepared) for upload in uploads]

    def encode(self, prepared: Sequence[PreparedImage], models: Collection[Model]) -> list[Put]:
        """Returns the puts, with each image's code under every model."""
        images = [each.image for each in prepared]
        codes = {model.id: self.encoder.encode(images, model) for model in models}
        return [
            replace(each.put, codes={model: by_image[n] for model, by_image in codes.items()})
            for n, each in enumerate(prepared)
        ]

    def keep(self, prepared: Iterable[PreparedImage]) -> None:
        """Writes the originals durably. Call it shortly before the put: a sweep removes originals
        that no image uses, but no new ones.

        Raises Unavailable or StorageFull.
        """
        for group in groups(prepared, KEPT_TOGETHER, lambda each: each.put.bytes, KEPT_BYTES):
            self.originals.put({each.put.sha256: _read(each.upload) for each in group})


class ImageWriter:
    """Stores images, so that the next search in this process finds them."""

    def __init__(
        self,
        store: Store,
        follower: FeedFollower,
        loader: ModelLoader,
        ingest: Ingest,
        copies: Copies | None = None,
    ) -> None:
        self.store, self.follower, self.loader = store, follower, loader
        self.ingest, self.copies = ingest, copies

    def put(
        self, uploads: Sequence[Upload], duplicates: Duplicates | None = None
    ) -> tuple[list[PutResult], int]:
        """Stores images durably. Returns a result for each, in order, and the newest seq, or
        0 if no image was stored.

        Starts again if models change meanwhile. Blocks; call it off the event loop. Raises
        CopiesOff, Unavailable, StorageFull, SQLAlchemyError.
        """
        for _ in range(PUT_TRIES):
            try:
                results, newest = self._put(uploads, duplicates)
            except ModelChanged:
                self.loader.refresh()
                continue
            self.follower.catch_up(newest)
            return results, newest
        raise Unavailable("models change faster than images can be stored; try again")

    def _put(
        self, uploads: Sequence[Upload], duplicates: Duplicates | None
    ) -> tuple[list[PutResult], int]:
        models = self.loader.models
        prepared = self.ingest.prepare(uploads, models)
        accepted, results = _distinct(uploads, prepared)
        copies: dict[int, tuple[Copy, ...]] = {}
        if duplicates is not None:
            copies = self._copies(accepted, duplicates)
        if duplicates is not None and duplicates.skip:
            self._skip(uploads, accepted, results, copies)
        if not accepted:
            return [results[place] for place in range(len(uploads))], 0
        puts = self.ingest.encode([*accepted.values()], models)
        self.ingest.keep(accepted.values())
        with timing.stage("db"):
            outcomes = self.store.images.put(puts)
        for place, put, outcome in zip(accepted, puts, outcomes, strict=True):
            name, found = uploads[place].name, copies.get(place)
            results[place] = PutResult(name, put.id, outcome.status, copies=found)
        newest = max(outcome.seq for outcome in outcomes)
        return [results[place] for place in range(len(uploads))], newest

    def _skip(
        self,
        uploads: Sequence[Upload],
        accepted: dict[int, PreparedImage],
        results: dict[int, PutResult],
        copies: Mapping[int, tuple[Copy, ...]],
    ) -> None:
        """Moves copies from what is to be stored to the results, with uploads that repeat them.

        An image that is stored already under its id stays: only its metadata may change.
        """
        skipped: dict[str, tuple[Copy, ...]] = {}
        for place in [place for place, found in copies.items() if found]:
            put = accepted[place].put
            stored = self.store.images.get(put.id)
            if stored is None or stored.sha256 != put.sha256:
                skipped[put.id] = copies[place]
                del accepted[place]
                name = uploads[place].name
                results[place] = PutResult(name, put.id, "skipped", copies=copies[place])
        for place, result in results.items():
            if result.status == "unchanged" and result.id in skipped:
                found = skipped[result.id]
                results[place] = replace(result, status="skipped", copies=found)

    def _copies(
        self, accepted: Mapping[int, PreparedImage], duplicates: Duplicates
    ) -> dict[int, tuple[Copy, ...]]:
        """Returns what each image is a copy of: stored images with other ids, and images before it
        in the request that are stored."""
        if self.copies is None:
            raise CopiesOff
        found: dict[int, tuple[Copy, ...]] = {}
        before: list[tuple[str, CopyHash]] = []
        mine = {image.put.id for image in accepted.values()}
        for place, image in accepted.items():
            put, hash = image.put, image.put.copy_hash
            assert hash is not None  # they are computed if there are ``copies``

            def chosen(stored: StoredImage) -> bool:
                return stored.id not in mine and stored.id.startswith(duplicates.prefix)

            answer = self.copies.find(hash, duplicates.distance, MOST_COPIES, chosen)
            copies = among(hash, before, duplicates.distance) + answer.copies
            copies.sort(key=lambda copy: copy.distance)
            found[place] = tuple(copies[:MOST_COPIES])
            if not (copies and duplicates.skip):
                before.append((put.id, hash))
        return found


def digest(upload: Upload) -> str:
    """Returns the SHA-256 of the upload's bytes, in hexadecimal."""
    return hashlib.sha256(_read(upload)).hexdigest()


def _prepared(upload: Upload, sha256: str, image: DecodedImage) -> PreparedImage | InvalidId:
    id = sha256[:DEFAULT_ID_DIGITS] if upload.id is None else upload.id
    if not re.fullmatch(ID_PATTERN, id) or id in UNADDRESSABLE_IDS:
        return InvalidId(f"the id does not match {ID_PATTERN}, or is . or ..")
    size = image.width, image.height, upload.file.seek(0, SEEK_END)
    put = Put(id, {}, sha256, *size, upload.metadata, image.copy_hash)
    return PreparedImage(upload, put, image)


def _distinct(
    uploads: Sequence[Upload], prepared: Sequence[PreparedImage | Rejection]
) -> tuple[dict[int, PreparedImage], dict[int, PutResult]]:
    """Splits uploads into images to store and results that are already known.

    Both dicts are keyed by position in the request.
    """
    accepted: dict[int, PreparedImage] = {}
    results: dict[int, PutResult] = {}
    first: dict[str, Upload] = {}
    for place, (upload, image) in enumerate(zip(uploads, prepared, strict=True)):
        if not isinstance(image, PreparedImage):
            results[place] = PutResult(upload.name, upload.id, "failed", image)
            continue
        id = image.put.id
        if id not in first:
            accepted[place] = image
            first[id] = upload
        elif _repeats(upload, first[id]):
            results[place] = PutResult(upload.name, id, "unchanged")
        else:
            error = DuplicateId(f"the id {id!r} occurs more than once in this request")
            results[place] = PutResult(upload.name, upload.id, "failed", error)
    return accepted, results


def _repeats(upload: Upload, earlier: Upload) -> bool:
    """Returns whether an upload repeats an earlier one whose derived id is the same."""
    derived = upload.id is None and earlier.id is None
    return derived and upload.metadata == earlier.metadata


def _read(upload: Upload) -> bytes:
    upload.file.seek(0)
    return upload.file.read()
