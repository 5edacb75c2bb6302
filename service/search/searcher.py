"""Finds the nearest stored images. A query passes these steps, in ``Searcher``:

1. ``Decoder.decode``       decodes the upload, or the original of a stored image
2. ``Encoder.lut``          runs the network and computes a look-up table
3. ``ExactSearch.submit``   scans the index, and resolves seqs to ids and metadata

A stored image without a readable original starts at step 3, with its code. Each step runs on its
own threads, and starts the next one when it ends; a query by one upload holds no thread while it
waits. Pages, groups, facets and explanations come from ``Answers``, which takes step 3.
"""

import hashlib
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
from service.decoding.decoder import DecodedImage, Decoder
from service.decoding.task import Region
from service.errors import (
    MaskOutdated,
    ModelChanged,
    Refused,
    Unavailable,
    UnknownClasses,
    WaitedTooLong,
)
from service.filters.columns import Column, Columns
from service.filters.masks import KeptMask
from service.filters.selection import Selection
from service.index.follower import FeedFollower
from service.models.classes import names_of
from service.models.encoder import Encoder
from service.search.answers import (
    MAX_REPLY_METADATA,
    Answers,
    Question,
    SearchAnswer,
    too_many_results,
)
from service.search.cursor import Compared, Cursor
from service.search.exact import ExactSearch, ScanOptions
from service.search.examples import Example, combined
from service.search.hit import Hit
from service.search.options import SearchOptions
from service.search.queries import Queries, Query, read
from service.telemetry import timing

SEARCH_TRIES = 8

Q = TypeVar("Q")
R = TypeVar("R")
Kept = TypeVar("Kept", KeptMask, list[Column])


@dataclass(frozen=True)
class _Context:
    """What one try of a search works with. ``columns``: of the facets."""

    options: SearchOptions
    model: Model
    columns: Sequence[Column] = ()


class Searcher:
    """Searches with the active model. If another one becomes active meanwhile, it searches again.

    Methods raise WaitedTooLong, Unavailable, UnknownClasses, InvalidFilter.
    """

    def __init__(
        self,
        queries: Queries,
        encoder: Encoder,
        follower: FeedFollower,
        exact: ExactSearch,
        columns: Columns,
        admission: Admission,
    ) -> None:
        self.queries, self.encoder, self.follower = queries, encoder, follower
        self.decoder: Decoder = queries.decoder
        self.exact, self.columns, self.admission = exact, columns, admission
        self.answers = Answers(queries, exact, columns, admission)
        self._reading = CapacityLimiter(1)

    async def by_uploads(self, files: Sequence[BinaryIO], options: SearchOptions) -> SearchAnswer:
        """Returns the images nearest to each upload; options beyond hits need a single upload.

        Raises TooManyResults.
        """
        if options.hits_alone:
            return await self._repeated(self._by_uploads, files, options)
        return await self._repeated(self._by_upload, files[0], options)

    async def by_id(self, id: str, options: SearchOptions) -> SearchAnswer:
        """Returns the images nearest to a stored one, itself included unless options leave it out.

        Raises NoSuchImage, NoOriginal, TooManyResults.
        """
        return await self._repeated(self._by_id, id, options)

    async def by_examples(
        self, examples: Sequence[Example], options: SearchOptions
    ) -> SearchAnswer:
        """Returns the images with the best weighted mean of the scores with the examples.

        Raises ImageError for an example that cannot be decoded, NoSuchImage, TooManyResults.
        """
        return await self._repeated(self._by_examples, examples, options)

    async def by_cursor(self, cursor: Cursor, options: SearchOptions) -> SearchAnswer:
        """Returns the next page of a search. Raises Refused if another model is active now."""
        return await self._repeated(self._by_cursor, cursor, options)

    async def _repeated(
        self,
        search: Callable[[Q, _Context], Awaitable[R]],
        query: Q,
        options: SearchOptions,
    ) -> R:
        """Calls ``search`` with the active model; again if another one became active meanwhile."""
        for _ in range(SEARCH_TRIES):
            model = self.encoder.models[self.follower.model]
            if options.explain and not names_of(model):
                raise UnknownClasses(
                    f"explain: model {model.id} knows no classes; train one with labelled images"
                )
            try:
                if not options.selection.is_everything:
                    options = replace(options, kept=await self._mask(options.selection, model.id))
                columns = await self._columns(options, model.id)
                return await search(query, _Context(options, model, columns))
            except (ModelChanged, MaskOutdated):
                await self.admission.run(self.follower.catch_up)
        raise Unavailable("models change faster than images can be searched; try again")

    async def _mask(self, selection: Selection, model: str) -> KeptMask:
        masks = self.exact.masks
        kept = await self.admission.on_thread(partial(masks.current, selection, model))
        if kept is not None:
            return kept
        return await self._read_all(partial(masks.find, selection, model))

    async def _columns(self, options: SearchOptions, model: str) -> Sequence[Column]:
        """Returns the columns of the facets, of which those that are missing are read together."""
        facets = options.counted
        if not facets:
            return []
        kept = await self.admission.on_thread(partial(self.columns.current, facets, model))
        if kept is not None:
            return kept
        return await self._read_all(partial(self.columns.find, facets, model))

    async def _read_all(self, read: Callable[[], Kept]) -> Kept:
        """Calls what reads all metadata. Such calls take turns of their own, so that they hold no
        turn of other requests while they wait for each other."""
        budget, borrower, began = wait_budget.current(), object(), time.perf_counter()
        try:
            with timing.stage("queue"), anyio.fail_after(budget.left):
                await self._reading.acquire_on_behalf_of(borrower)
        except TimeoutError as error:
            raise WaitedTooLong from error
        try:
            budget.spend(time.perf_counter() - began)
            return await self.admission.on_thread(read)
        finally:
            self._reading.release_on_behalf_of(borrower)

    async def _by_uploads(self, files: Sequence[BinaryIO], context: _Context) -> SearchAnswer:
        options, model = context.options, context.model
        excluded: list[set[str]] = [set()] * len(files)
        if options.exclude_same:
            excluded = await self.admission.run(partial(self.queries.ids_of_uploads, files))
        most = options.k + max(map(len, excluded), default=0)
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

    async def _by_upload(self, file: BinaryIO, context: _Context) -> SearchAnswer:
        options, model = context.options, context.model
        data, size = partial(read, file), file.seek(0, SEEK_END)
        step = self.encoder.features if options.explain else self.encoder.lut
        try:
            (made,) = await self.decoder.decode(
                data, size, model, partial(step, model=model), region=options.region
            )
        except ImageError as error:
            return SearchAnswer([error], "image", model.id)
        excluded = []
        if options.exclude_same:
            excluded = [await self.admission.run(lambda: hashlib.sha256(data()).hexdigest())]
        if options.explain:
            return await self._answer(_question(made, model, "image", excluded), context)
        return await self._answer(Question(made, "image", excluded), context)

    async def _by_examples(self, examples: Sequence[Example], context: _Context) -> SearchAnswer:
        model = context.model
        async with self.admission.turn():
            read = partial(self.queries.of_examples, examples, model)
            queries, hashes = await self.admission.on_thread(read)
            decoded = [query for query in queries if isinstance(query, DecodedImage)]
            luts = iter(await self.encoder.luts(decoded, model))
        tables = [
            next(luts) if isinstance(query, DecodedImage) else _lut(query, model)
            for query in queries
        ]
        excluded = hashes if context.options.exclude_same else []
        question = Question(combined(examples, tables), "examples", excluded)
        return await self._answer(question, context)

    async def _by_cursor(self, cursor: Cursor, context: _Context) -> SearchAnswer:
        if cursor.model != context.model.id:
            raise Refused(
                f"cursor: the search used model {cursor.model}, but {context.model.id} is active "
                "now; search again"
            )
        question = Question(cursor.table, cursor.query, cursor.excluded)
        return await self._answer(question, context, cursor)

    async def _by_id(self, id: str, context: _Context) -> SearchAnswer:
        options, model = context.options, context.model
        stored = await self.admission.run(partial(self.queries.stored, id, model, options.region))
        compared, query = _compared(stored.query), stored.query
        excluded = [stored.sha256] if options.exclude_same else []
        if options.explain:
            features = await self._features(query, model)
            question = Question(_lut(features, model), compared, excluded, features, id)
        else:
            question = Question(await self._table(query, model), compared, excluded, id=id)
        return await self._answer(question, context)

    async def _answer(
        self, question: Question, context: _Context, cursor: Cursor | None = None
    ) -> SearchAnswer:
        return await self.answers.answer(
            question, context.options, context.model, context.columns, cursor
        )

    async def _table(self, query: Query, model: Model) -> NDArray[np.float32]:
        if isinstance(query, DecodedImage):
            table: NDArray[np.float32] = (await result_of(self.encoder.lut(query, model)))[0]
            return table
        return _lut(query, model)

    async def _features(self, query: Query, model: Model) -> NDArray[np.float32]:
        if isinstance(query, DecodedImage):
            features: NDArray[np.float32]
            features = (await result_of(self.encoder.features(query, model)))[0]
            return features
        return query

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
                    raise too_many_results("results, or for fewer images at a time")
        hits = iter(found)
        return [image if isinstance(image, ImageError) else next(hits) for image in decoded]


def _question(
    features: NDArray[np.float32], model: Model, compared: Compared, excluded: Sequence[str]
) -> Question:
    return Question(_lut(features, model), compared, excluded, features)


def _lut(features: NDArray[np.float32], model: Model) -> NDArray[np.float32]:
    """Returns the look-up table (M,K) of features (D,)."""
    table: NDArray[np.float32] = model.codebook.lut(features[None])[0]
    return table


def _compared(query: Query) -> Compared:
    return "original" if isinstance(query, DecodedImage) else "code"


def _without(hits: list[Hit], ids: set[str], k: int) -> list[Hit]:
    return [hit for hit in hits if hit.id not in ids][:k]
