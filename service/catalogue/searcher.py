"""Finds the nearest stored images. A query passes these steps, in ``Searcher``:

1. ``Decoder.decode``       decodes the upload, or the original of a stored image
2. ``Encoder.lut``          runs the network and computes a look-up table
3. ``ExactSearch.submit``   scans the index, and resolves seqs to ids and metadata

A stored image without a readable original starts at step 3, with its code. Each step runs on its
own threads, and starts the next one when it ends; a query by one upload holds no thread while it
waits.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from io import SEEK_END
from typing import BinaryIO, TypeVar

import anyio
import numpy as np
from anyio import CapacityLimiter
from numpy.typing import NDArray

from gpq.errors import ImageError
from gpq.model.model import Model
from service.catalogue.cursor import Compared, Cursor, Place
from service.catalogue.exact import ExactSearch, Hit, ScanOptions, scores
from service.catalogue.examples import Example, combined
from service.catalogue.masks import KeptMask
from service.catalogue.selection import EVERYTHING, Selection
from service.concurrency import wait_budget
from service.concurrency.admission import Admission
from service.concurrency.futures import result_of
from service.database.images import ImageTable
from service.database.records import StoredImage
from service.decoding.decoder import DecodedImage, Decoder
from service.decoding.task import Region
from service.errors import (
    MaskOutdated,
    ModelChanged,
    NoOriginal,
    NoSuchImage,
    Refused,
    TooManyResults,
    Unavailable,
    WaitedTooLong,
)
from service.index.follower import FeedFollower
from service.models.encoder import Encoder
from service.originals.originals import Originals
from service.telemetry import timing

MAX_REPLY_METADATA = 64 * 2**20  # characters of metadata in all results of a batch
SEARCH_TRIES = 8

Q = TypeVar("Q")
R = TypeVar("R")
log = logging.getLogger("gpq.service")


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search. ``exclude_same``: leaves out images with the query's bytes.
    ``selection``: the images to search. ``pages``: whether the answer says how to go on.
    ``region``: the part of the queries that is searched for. ``kept``: the mask of the selection,
    which the searcher finds."""

    k: int
    min_score: float
    exclude_same: bool
    selection: Selection = EVERYTHING
    pages: bool = False
    region: Region | None = None
    kept: KeptMask | None = None


@dataclass(frozen=True)
class SearchAnswer:
    """``queries``: for each query its hits, or the error of its image.

    ``query``: what was compared: the upload, the stored original, the stored code, or examples.
    ``model``: id
    of the model. ``next``: where the next page begins, if there may be one. ``total``: number of
    images of the selection.
    """

    queries: list[list[Hit] | ImageError]
    query: Compared
    model: str
    next: Cursor | None = None
    total: int | None = None


@dataclass(frozen=True)
class StoredQuery:
    """A stored image as a query: its pixels, or the look-up table (M,K) of its code.

    ``excluded``: ids to leave out of the hits. ``sha256``: of its bytes.
    """

    query: DecodedImage | NDArray[np.float32]
    excluded: set[str]
    sha256: str


class Searcher:
    """Searches with the active model. If another one becomes active meanwhile, it searches again.

    Methods raise WaitedTooLong, Unavailable.
    """

    def __init__(
        self,
        images: ImageTable,
        originals: Originals,
        follower: FeedFollower,
        decoder: Decoder,
        encoder: Encoder,
        exact: ExactSearch,
        admission: Admission,
    ) -> None:
        self.images, self.originals, self.follower = images, originals, follower
        self.decoder, self.encoder, self.exact = decoder, encoder, exact
        self.admission = admission
        self._new_masks = CapacityLimiter(1)

    async def by_uploads(self, files: Sequence[BinaryIO], options: SearchOptions) -> SearchAnswer:
        """Returns the images nearest to each upload. Raises TooManyResults."""
        return await self._repeated(self._by_uploads, files, options)

    async def by_id(self, id: str, options: SearchOptions) -> SearchAnswer:
        """Returns the images nearest to a stored one, itself included unless options leave it out.

        Raises NoSuchImage, NoOriginal.
        """
        return await self._repeated(self._by_id, id, options)

    async def by_examples(
        self, examples: Sequence[Example], options: SearchOptions
    ) -> SearchAnswer:
        """Returns the images with the best weighted mean of the scores with the examples.

        Raises ImageError for an example that cannot be decoded, NoSuchImage.
        """
        return await self._repeated(self._by_examples, examples, options)

    async def by_cursor(self, cursor: Cursor, options: SearchOptions) -> SearchAnswer:
        """Returns the next page of a search. Raises Refused if another model is active now."""
        return await self._repeated(self._by_cursor, cursor, options)

    async def _repeated(
        self,
        search: Callable[[Q, SearchOptions, Model], Awaitable[R]],
        query: Q,
        options: SearchOptions,
    ) -> R:
        """Calls ``search`` with the active model; again if another one became active meanwhile."""
        for _ in range(SEARCH_TRIES):
            model = self.encoder.models[self.follower.model]
            try:
                if not options.selection.is_everything:
                    options = replace(options, kept=await self._mask(options.selection, model.id))
                return await search(query, options, model)
            except (ModelChanged, MaskOutdated):
                await self.admission.run(self.follower.catch_up)
        raise Unavailable("models change faster than images can be searched; try again")

    async def _mask(self, selection: Selection, model: str) -> KeptMask:
        """Returns the mask of a selection. Those that are new take turns of their own, so that
        they hold no turn of other requests while they wait for each other."""
        masks, budget, borrower = self.exact.masks, wait_budget.current(), object()
        kept = await self.admission.on_thread(partial(masks.current, selection, model))
        if kept is not None:
            return kept
        began = time.perf_counter()
        try:
            with timing.stage("queue"), anyio.fail_after(budget.left):
                await self._new_masks.acquire_on_behalf_of(borrower)
        except TimeoutError as error:
            raise WaitedTooLong from error
        try:
            budget.spend(time.perf_counter() - began)
            return await self.admission.on_thread(partial(masks.find, selection, model))
        finally:
            self._new_masks.release_on_behalf_of(borrower)

    async def _by_uploads(
        self, files: Sequence[BinaryIO], options: SearchOptions, model: Model
    ) -> SearchAnswer:
        if options.pages:
            return await self._first_page(files[0], options, model)
        excluded: list[set[str]] = [set()] * len(files)
        if options.exclude_same:
            excluded = await self.admission.run(partial(self._ids_of_uploads, files))
        most = options.k + max(map(len, excluded))
        scan = ScanOptions(model.id, most, options.min_score, options.selection, kept=options.kept)
        if len(files) == 1:
            found = [await self._nearest(files[0], scan, model, options.region)]
        else:
            found = await self._nearest_to_each(files, scan, model, options.region)
        queries = [
            hits if isinstance(hits, ImageError) else _without(hits, ids, options.k)
            for hits, ids in zip(found, excluded, strict=True)
        ]
        return SearchAnswer(queries, "image", model.id)

    async def _first_page(
        self, file: BinaryIO, options: SearchOptions, model: Model
    ) -> SearchAnswer:
        read, size = partial(_read, file), file.seek(0, SEEK_END)
        try:
            luts = await self.decoder.decode(
                read, size, model, partial(self.encoder.lut, model=model), region=options.region
            )
        except ImageError as error:
            return SearchAnswer([error], "image", model.id)
        excluded = []
        if options.exclude_same:
            excluded = [await self.admission.run(lambda: hashlib.sha256(read()).hexdigest())]
        return await self._page(luts[0], options, model, "image", excluded)

    async def _by_examples(
        self, examples: Sequence[Example], options: SearchOptions, model: Model
    ) -> SearchAnswer:
        async with self.admission.turn():
            read = partial(self._read_examples, examples, options, model)
            queries, hashes = await self.admission.on_thread(read)
            decoded = [query for query in queries if isinstance(query, DecodedImage)]
            luts = iter(await self.encoder.luts(decoded, model))
        tables = [next(luts) if isinstance(query, DecodedImage) else query for query in queries]
        excluded = hashes if options.exclude_same else []
        return await self._page(combined(examples, tables), options, model, "examples", excluded)

    def _read_examples(
        self, examples: Sequence[Example], options: SearchOptions, model: Model
    ) -> tuple[list[DecodedImage | NDArray[np.float32]], list[str]]:
        """Returns the pixels or the table of each example, and the sha256 of its bytes."""
        queries: list[DecodedImage | NDArray[np.float32]] = []
        hashes = []
        for example in examples:
            if isinstance(example.query, str):
                stored = self._stored_query(example.query, options, model)
                queries.append(stored.query)
                hashes.append(stored.sha256)
            else:
                data = _read(example.query)
                queries.append(self.decoder.decode_one(data, model))
                hashes.append(hashlib.sha256(data).hexdigest())
        return queries, hashes

    async def _by_cursor(
        self, cursor: Cursor, options: SearchOptions, model: Model
    ) -> SearchAnswer:
        if cursor.model != model.id:
            raise Refused(
                f"cursor: the search used model {cursor.model}, but {model.id} is active now; "
                "search again"
            )
        return await self._page(
            cursor.table, options, model, cursor.query, cursor.excluded, cursor.after
        )

    async def _page(
        self,
        table: NDArray[np.float32],
        options: SearchOptions,
        model: Model,
        query: Compared,
        excluded: Sequence[str],
        after: Place | None = None,
    ) -> SearchAnswer:
        """Returns a page of hits. ``excluded``: the sha256 of bytes whose images are left out."""
        ids: set[str] = set()
        if excluded:
            ids = await self.admission.run(partial(self._ids_of_bytes, excluded))
        k, selection = options.k, options.selection
        # With negative examples, scores may be below -1.
        min_score = options.min_score if options.min_score > -1 else -math.inf
        scan = ScanOptions(model.id, k + len(ids), min_score, selection, after, options.kept)
        hits = _without((await result_of(self.exact.submit(scan, [table])))[0], ids, k)
        if not options.pages:
            return SearchAnswer([hits], query, model.id)
        total = None
        if not selection.is_everything:
            total = await self.admission.run(partial(self.exact.total, model.id, selection))
        following = None
        if len(hits) == k:
            chosen = selection.filter and json.loads(selection.filter.text)
            place = Place(hits[-1].score, hits[-1].seq)
            following = Cursor(model.id, table, place, query, chosen, [*excluded], k, min_score)
        return SearchAnswer([hits], query, model.id, following, total)

    async def _nearest(
        self, file: BinaryIO, scan: ScanOptions, model: Model, region: Region | None
    ) -> list[Hit] | ImageError:
        try:
            found: list[list[Hit]] = await self.decoder.decode(
                partial(_read, file),
                file.seek(0, SEEK_END),
                model,
                partial(self.encoder.lut, model=model),
                partial(self.exact.submit, scan),
                region=region,
            )
        except ImageError as error:
            return error
        return found[0]

    async def _nearest_to_each(
        self,
        files: Sequence[BinaryIO],
        scan: ScanOptions,
        model: Model,
        region: Region | None,
    ) -> list[list[Hit] | ImageError]:
        async with self.admission.turn():  # limits how many batches hold pixels at the same time
            decode = partial(self.decoder.decode_all, map(_read, files), [model], region)
            decoded = await self.admission.on_thread(decode)
            images = [image for image in decoded if isinstance(image, DecodedImage)]
            luts = await self.encoder.luts(images, model)
        found: list[list[Hit]] = []
        characters = 0
        async with aclosing(self.exact.parts(scan, luts)) as parts:
            async for part in parts:
                found += part
                characters += sum(len(hit.metadata or "") for hits in part for hit in hits)
                if characters > MAX_REPLY_METADATA:
                    raise TooManyResults(
                        f"k: the metadata of all results exceed {MAX_REPLY_METADATA:,} "
                        "characters; ask for fewer results, or for fewer images at a time"
                    )
        hits = iter(found)
        return [image if isinstance(image, ImageError) else next(hits) for image in decoded]

    def _ids_of_bytes(self, hashes: Sequence[str]) -> set[str]:
        """Returns the ids of the stored images with these sha256."""
        return {id for sha256 in hashes for id in self.images.ids_of(sha256)}

    def _ids_of_uploads(self, files: Sequence[BinaryIO]) -> list[set[str]]:
        """Returns, for each upload, the ids of the stored images with the same bytes."""
        return [self.images.ids_of(hashlib.sha256(_read(file)).hexdigest()) for file in files]

    async def _by_id(self, id: str, options: SearchOptions, model: Model) -> SearchAnswer:
        k, min_score, selection = options.k, options.min_score, options.selection
        stored = await self.admission.run(partial(self._stored_query, id, options, model))
        lut = stored.query
        if by_original := isinstance(lut, DecodedImage):
            lut = (await result_of(self.encoder.lut(lut, model)))[0]
        compared: Compared = "original" if by_original else "code"
        if options.pages:
            excluded = [stored.sha256] if options.exclude_same else []
            return await self._page(lut, options, model, compared, excluded)
        scan = ScanOptions(
            model.id, k + len(stored.excluded), min_score, selection, kept=options.kept
        )
        hits: list[Hit] = (await result_of(self.exact.submit(scan, [lut])))[0]
        if options.exclude_same:
            hits = _without(hits, stored.excluded, k)
        elif options.region is None and id not in [hit.id for hit in hits]:
            # Ties or nearer codes pushed the image out of the first k. It is the last hit then.
            own = await self.admission.run(partial(self._own_hit, id, lut, model))
            if own.score >= min_score and selection.has(own.id, own.metadata):
                hits[k - 1 :] = [own]
        return SearchAnswer([hits], compared, model.id)

    def _stored_query(self, id: str, options: SearchOptions, model: Model) -> StoredQuery:
        """Decodes the original of an image; if it cannot be read, uses the table of its code.

        Raises NoOriginal if a region is wanted and the original cannot be read.
        """
        image = self._get(id)
        excluded = self.images.ids_of(image.sha256) | {id} if options.exclude_same else set()
        try:
            data = self.originals.get(image.sha256)
            if data is not None:
                decoded = self.decoder.decode_one(data, model, options.region)
                return StoredQuery(decoded, excluded, image.sha256)
        except WaitedTooLong:
            raise
        except (ImageError, Unavailable) as error:
            if options.region is not None and isinstance(error, Unavailable):
                raise
            # The limits were lowered, the file was damaged, or the store does not answer.
            log.warning("original %s cannot be read: %s", image.sha256, error)
        if options.region is not None:
            raise NoOriginal(id)
        lut = self.encoder.lut_of_code(self._code_of(image, model), model)
        return StoredQuery(lut, excluded, image.sha256)

    def _own_hit(self, id: str, lut: NDArray[np.float32], model: Model) -> Hit:
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


def _without(hits: list[Hit], ids: set[str], k: int) -> list[Hit]:
    return [hit for hit in hits if hit.id not in ids][:k]


def _read(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()
