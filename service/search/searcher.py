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
from service.concurrency import wait_budget
from service.concurrency.admission import Admission
from service.concurrency.futures import result_of
from service.decoding.decoder import DecodedImage
from service.decoding.task import Region
from service.errors import (
    MaskOutdated,
    ModelChanged,
    Refused,
    TooManyResults,
    Unavailable,
    WaitedTooLong,
)
from service.filters.masks import KeptMask
from service.filters.selection import EVERYTHING, Selection
from service.index.follower import FeedFollower
from service.search.cursor import Compared, Cursor, LastHit
from service.search.exact import ExactSearch, Hit, ScanOptions
from service.search.examples import Example, combined
from service.search.queries import Queries, read
from service.telemetry import timing

MAX_REPLY_METADATA = 64 * 2**20  # characters of metadata in all results of a batch
SEARCH_TRIES = 8

Q = TypeVar("Q")
R = TypeVar("R")


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
    ``model``: id of the model. ``next``: where the next page begins, if there may be one.
    ``total``: number of images of the selection.
    """

    queries: list[list[Hit] | ImageError]
    query: Compared
    model: str
    next: Cursor | None = None
    total: int | None = None


class Searcher:
    """Searches with the active model. If another one becomes active meanwhile, it searches again.

    Methods raise WaitedTooLong, Unavailable.
    """

    def __init__(
        self,
        queries: Queries,
        follower: FeedFollower,
        exact: ExactSearch,
        admission: Admission,
    ) -> None:
        self.queries, self.follower = queries, follower
        self.decoder, self.encoder, self.exact = queries.decoder, queries.encoder, exact
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
            excluded = await self.admission.run(partial(self.queries.ids_of_uploads, files))
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
        data, size = partial(read, file), file.seek(0, SEEK_END)
        try:
            luts = await self.decoder.decode(
                data, size, model, partial(self.encoder.lut, model=model), region=options.region
            )
        except ImageError as error:
            return SearchAnswer([error], "image", model.id)
        excluded = []
        if options.exclude_same:
            excluded = [await self.admission.run(lambda: hashlib.sha256(data()).hexdigest())]
        return await self._page(luts[0], options, model, "image", excluded)

    async def _by_examples(
        self, examples: Sequence[Example], options: SearchOptions, model: Model
    ) -> SearchAnswer:
        async with self.admission.turn():
            read = partial(self.queries.of_examples, examples, model)
            queries, hashes = await self.admission.on_thread(read)
            decoded = [query for query in queries if isinstance(query, DecodedImage)]
            luts = iter(await self.encoder.luts(decoded, model))
        tables = [next(luts) if isinstance(query, DecodedImage) else query for query in queries]
        excluded = hashes if options.exclude_same else []
        return await self._page(combined(examples, tables), options, model, "examples", excluded)

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
        after: LastHit | None = None,
    ) -> SearchAnswer:
        """Returns a page of hits. ``excluded``: the sha256 of bytes whose images are left out."""
        ids: set[str] = set()
        if excluded:
            ids = await self.admission.run(partial(self.queries.ids_of_bytes, excluded))
        k, selection = options.k, options.selection
        # With negative examples, scores may be below -1.
        min_score = options.min_score if options.min_score > -1 else -math.inf
        scan = ScanOptions(model.id, k + len(ids), min_score, selection, after, options.kept)
        hits = _without((await result_of(self.exact.submit(scan, [table])))[0], ids, k)
        if not options.pages:
            return SearchAnswer([hits], query, model.id)
        total = None
        if options.kept is not None:
            total = await self.admission.run(partial(self.exact.total, selection, options.kept))
        following = None
        if len(hits) == k:
            chosen = selection.filter and json.loads(selection.filter.text)
            last = LastHit(hits[-1].score, hits[-1].seq)
            following = Cursor(model.id, table, last, query, chosen, [*excluded], k, min_score)
        return SearchAnswer([hits], query, model.id, following, total)

    async def _nearest(
        self, file: BinaryIO, scan: ScanOptions, model: Model, region: Region | None
    ) -> list[Hit] | ImageError:
        try:
            found: list[list[Hit]] = await self.decoder.decode(
                partial(read, file),
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
            decode = partial(self.decoder.decode_all, map(read, files), [model], region)
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

    async def _by_id(self, id: str, options: SearchOptions, model: Model) -> SearchAnswer:
        k, min_score, selection = options.k, options.min_score, options.selection
        stored = await self.admission.run(partial(self.queries.stored, id, model, options.region))
        lut = stored.query
        if by_original := isinstance(lut, DecodedImage):
            lut = (await result_of(self.encoder.lut(lut, model)))[0]
        compared: Compared = "original" if by_original else "code"
        if options.pages:
            excluded = [stored.sha256] if options.exclude_same else []
            return await self._page(lut, options, model, compared, excluded)
        same: set[str] = set()
        if options.exclude_same:
            found = partial(self.queries.ids_of_bytes, [stored.sha256])
            same = await self.admission.run(found) | {id}
        scan = ScanOptions(model.id, k + len(same), min_score, selection, kept=options.kept)
        hits: list[Hit] = (await result_of(self.exact.submit(scan, [lut])))[0]
        if options.exclude_same:
            hits = _without(hits, same, k)
        elif options.region is None and id not in [hit.id for hit in hits]:
            # Ties or nearer codes pushed the image out of the first k. It is the last hit then.
            own = await self.admission.run(partial(self.queries.own_hit, id, lut, model))
            if own.score >= min_score and selection.has(own.id, own.metadata):
                hits[k - 1 :] = [own]
        return SearchAnswer([hits], compared, model.id)


def _without(hits: list[Hit], ids: set[str], k: int) -> list[Hit]:
    return [hit for hit in hits if hit.id not in ids][:k]
