"""Pictures on their way in: checked, decoded, their originals kept, encoded."""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import SEEK_END
from typing import BinaryIO

from gpq.model.model import Model
from service.concurrency.groups import groups
from service.database.records import KEEP, Keep, Put
from service.models.encoder import Encoder, Picture
from service.originals import Originals
from service.problems import Problem
from service.settings import ID_PATTERN

DEFAULT_ID_DIGITS = 32
KEPT_TOGETHER, KEPT_BYTES = 16, 2**21  # originals that are in memory at the same time
UNADDRESSABLE_IDS = (".", "..")  # /images/.. is another path to every client


@dataclass(frozen=True)
class Upload:
    """One picture to store. id None: named by its bytes. metadata as in ``records.Put``.
    name: of the uploaded file, for the reply alone."""

    file: BinaryIO
    name: str
    id: str | None
    metadata: str | Keep | None = KEEP


@dataclass(frozen=True)
class Prepared:
    """A picture that can be stored; put has no codes yet."""

    upload: Upload
    put: Put
    picture: Picture


class Ingest:
    """All methods block; call them off the event loop."""

    def __init__(self, encoder: Encoder, originals: Originals) -> None:
        self.encoder, self.originals = encoder, originals

    def prepare(
        self, uploads: Sequence[Upload], models: Collection[Model]
    ) -> list[Prepared | Problem]:
        """Side by side; Problem 400, 413, 415 or 422 in the place of one that cannot be used.

        Raises Problem 503 where it waits too long.
        """
        hashes: list[str] = []

        def contents() -> Iterator[bytes]:
            for upload in uploads:
                data = _read(upload)
                hashes.append(hashlib.sha256(data).hexdigest())
                yield data

        accepted = self.encoder.accept(contents(), models)
        return [
            picture if isinstance(picture, Problem) else _prepared(upload, sha256, picture)
            for upload, sha256, picture in zip(uploads, hashes, accepted, strict=True)
        ]

    def keep(self, prepared: Iterable[Prepared]) -> None:
        """Their originals, durably. Soon before they are stored: the sweep spares what is young.

        Raises Problem 503 or 507.
        """
        for group in groups(prepared, KEPT_TOGETHER, lambda each: each.put.bytes, KEPT_BYTES):
            self.originals.put({each.put.sha256: _read(each.upload) for each in group})

    def encode(self, prepared: Sequence[Prepared], models: Collection[Model]) -> list[Put]:
        """What is to be stored, with a code of every model."""
        pictures = [each.picture for each in prepared]
        codes = {model.id: self.encoder.encode(pictures, model) for model in models}
        return [
            replace(each.put, codes={model: of_all[n] for model, of_all in codes.items()})
            for n, each in enumerate(prepared)
        ]


def digest(upload: Upload) -> str:
    """SHA-256 of its bytes, in hexadecimal."""
    return hashlib.sha256(_read(upload)).hexdigest()


def _prepared(upload: Upload, sha256: str, picture: Picture) -> Prepared | Problem:
    id = sha256[:DEFAULT_ID_DIGITS] if upload.id is None else upload.id
    if not re.fullmatch(ID_PATTERN, id) or id in UNADDRESSABLE_IDS:
        wrong = f"the id does not match {ID_PATTERN}, or is a lone . or .."
        return Problem(422, "invalid-id", wrong)
    size = picture.width, picture.height, upload.file.seek(0, SEEK_END)
    return Prepared(upload, Put(id, {}, sha256, *size, upload.metadata), picture)


def _read(upload: Upload) -> bytes:
    upload.file.seek(0)
    return upload.file.read()
