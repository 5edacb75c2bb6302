"""Computes the codes of an added model for stored images, from their originals."""

import time
from collections.abc import Iterator

from gpq.errors import ImageError
from gpq.model.model import Model
from service.database.models import ModelTable
from service.database.records import MissingCode, StoredModel
from service.decoding.decoder import DecodedImage, Decoder
from service.errors import ModelError, StorageFull, Unavailable
from service.jobs.progress import JobRun
from service.jobs.throttle import Throttle
from service.models.encoder import Encoder
from service.originals.originals import NoOriginals, Originals

REINDEX_BATCH = 16  # images encoded at a time; a search waits for one such batch at most


class Reindex:
    """Stores each code as soon as it is computed; an interrupted run continues with the rest."""

    def __init__(
        self,
        models: ModelTable,
        decoder: Decoder,
        encoder: Encoder,
        originals: Originals,
        throttle: Throttle,
    ) -> None:
        self.models, self.originals = models, originals
        self.decoder, self.encoder = decoder, encoder
        self.throttle = throttle

    def run(self, stored: StoredModel, model: Model, run: JobRun) -> None:
        """Gives every image a code of the model.

        Raises ModelError if no originals are kept, or the model is deleted meanwhile.
        """
        after = 0
        self.throttle.rest(0.0, run)
        while not run.stop.is_set():
            started = time.monotonic()
            page = self.models.missing(stored.number, after, REINDEX_BATCH)
            if not page:
                self.models.complete(stored.id)
                break
            if isinstance(self.originals, NoOriginals):
                raise ModelError(
                    "GPQ_IMAGE_STORE is none, and without originals no image can be re-encoded: "
                    "post all images again, or set GPQ_IMAGE_STORE to the store of the originals"
                )
            after = page[-1].seq
            codes, failures = self._codes(page, model)
            self.models.fill(stored.id, codes)
            run.advance(len(page), page[-1].id, failures)
            self.throttle.rest(time.monotonic() - started, run)

    def _codes(
        self, page: list[MissingCode], model: Model
    ) -> tuple[dict[int, bytes], list[tuple[str, str]]]:
        """Returns codes by seq, and (id, reason) of each image that cannot be encoded."""
        failures: list[tuple[str, str]] = []
        kept: list[MissingCode] = []

        def contents() -> Iterator[bytes]:
            for image in page:
                try:
                    data = self.originals.get(image.sha256)
                except (Unavailable, StorageFull) as error:
                    failures.append((image.id, str(error)))
                    continue
                if data is None:
                    failures.append((image.id, "its original is not kept"))
                else:
                    kept.append(image)
                    yield data

        images: dict[int, DecodedImage] = {}
        decoded = self.decoder.decode_all(contents(), [model])
        for missing, image in zip(kept, decoded, strict=True):
            if isinstance(image, ImageError):
                failures.append((missing.id, f"its original cannot be decoded: {image}"))
            else:
                images[missing.seq] = image
        codes = self.encoder.encode(list(images.values()), model)
        return dict(zip(images, codes, strict=True)), failures
