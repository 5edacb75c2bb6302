"""Answers a query that is given as one look-up table: hits, pages of hits, or groups of hits."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gpq.errors import ImageError
from gpq.model.model import Model
from service.concurrency import wait_budget
from service.concurrency.admission import Admission
from service.concurrency.futures import result_of
from service.errors import TooManyResults
from service.filters.columns import Column, Columns, ValueCount
from service.search.cursor import Compared, Cursor, LastHit
from service.search.exact import ExactSearch, ScanOptions
from service.search.explanation import Explanation, explained
from service.search.groups import Groups
from service.search.hit import Hit
from service.search.options import SearchOptions
from service.search.queries import Queries

MAX_REPLY_METADATA = 64 * 2**20  # characters of metadata in all results of a reply
FIRST_SCANNED, MOST_SCANNED = 256, 4096  # hits that are grouped at a time
MOST_GROUPED = 100_000  # hits that are looked at to form groups


@dataclass(frozen=True)
class Question:
    """What is compared with the stored images.

    ``table``: the look-up table (M,K). ``compared``: what it was made of. ``excluded``: the sha256
    of bytes whose images are left out. ``features``: (D,), if the answer is to be explained.
    ``id``: of the stored image that is searched for, if it is one.
    """

    table: NDArray[np.float32]
    compared: Compared
    excluded: Sequence[str] = ()
    features: NDArray[np.float32] | None = None
    id: str | None = None


@dataclass(frozen=True)
class SearchAnswer:
    """``queries``: for each query its hits, or the error of its image.

    ``compared``: the upload, the stored original, the stored code, or examples. ``model``: its id.
    ``next``: where the next page begins, if there may be one. ``total``: number of images of the
    selection with the wanted score. ``complete``: whether groups are all that were asked for, or
    all that there are; None without groups. ``facets``: counts by field.
    """

    queries: list[list[Hit] | ImageError]
    compared: Compared
    model: str
    next: Cursor | None = None
    total: int | None = None
    complete: bool | None = None
    facets: dict[str, list[ValueCount]] | None = None
    explanation: Explanation | None = None


class Answers:
    """Answers questions. Methods raise ModelChanged, MaskOutdated, WaitedTooLong, Unavailable."""

    def __init__(
        self, queries: Queries, exact: ExactSearch, columns: Columns, admission: Admission
    ) -> None:
        self.queries, self.exact, self.columns = queries, exact, columns
        self.admission = admission

    async def answer(
        self,
        question: Question,
        options: SearchOptions,
        model: Model,
        columns: Sequence[Column] = (),
        cursor: Cursor | None = None,
    ) -> SearchAnswer:
        """Returns the hits and what else the options ask for.

        ``columns``: of the facets. ``cursor``: where the page begins. Raises TooManyResults.
        """
        ids: set[str] = set()
        if question.excluded:
            ids = await self.admission.run(partial(self.queries.ids_of_bytes, question.excluded))
        if options.exclude_same and question.id is not None:
            ids |= {question.id}
        after = None if cursor is None else cursor.after
        scan = ScanOptions(
            model.id, options.k, options.min_score, options.selection, after, options.kept
        )
        if options.grouping is not None:
            return await self._grouped(question, scan, options, model, columns, ids)
        found = await self._hits(question.table, replace(scan, k=options.k + len(ids)))
        hits = [hit for hit in found if hit.id not in ids][: options.k]
        if not options.pages:
            hits = await self.with_own(hits, question, options, model)
        answer = SearchAnswer([hits], question.compared, model.id)
        if options.pages:
            answer = await self._with_page(answer, question, scan, cursor)
        return await self._completed(answer, question, options, model, columns)

    async def with_own(
        self, hits: list[Hit], question: Question, options: SearchOptions, model: Model
    ) -> list[Hit]:
        """Returns the hits of a search by a stored image with that image, unless it is left out.

        Ties or nearer codes may have pushed it out of the first k. It is the last hit then.
        """
        id = question.id
        if id is None or options.exclude_same or options.region is not None:
            return hits
        if id in [hit.id for hit in hits]:
            return hits
        own = await self.admission.run(partial(self.queries.own_hit, id, question.table, model))
        if own.score < options.min_score or not options.selection.has(own.id, own.metadata):
            return hits
        return [*hits[: options.k - 1], own]

    async def _grouped(
        self,
        question: Question,
        scan: ScanOptions,
        options: SearchOptions,
        model: Model,
        columns: Sequence[Column],
        ids: set[str],
    ) -> SearchAnswer:
        assert options.grouping is not None
        groups = Groups(options.grouping, options.k)
        size, looked, complete = FIRST_SCANNED, 0, False
        budget = wait_budget.current()
        while not complete and looked < MOST_GROUPED:
            size = min(size, MOST_GROUPED - looked)
            found = await self._hits(question.table, replace(scan, k=size))
            budget.lift()  # what has begun is finished
            rest = [hit for hit in found if hit.id not in ids]
            full = await self.admission.run(partial(groups.add, rest))
            if groups.characters > MAX_REPLY_METADATA:
                raise too_many_results("groups")
            complete = full or len(found) < size
            if found:
                scan = replace(scan, after=LastHit(found[-1].score, found[-1].seq))
            looked, size = looked + len(found), min(2 * size, MOST_SCANNED)
        answer = SearchAnswer([groups.hits()], question.compared, model.id, complete=complete)
        return await self._completed(answer, question, options, model, columns)

    async def _hits(self, table: NDArray[np.float32], scan: ScanOptions) -> list[Hit]:
        found: list[list[Hit]] = await result_of(self.exact.submit(scan, [table]))
        return found[0]

    async def _with_page(
        self, answer: SearchAnswer, question: Question, scan: ScanOptions, cursor: Cursor | None
    ) -> SearchAnswer:
        """Adds the total, and where the next page begins."""
        prefix = scan.selection.prefix
        total = cursor.total if cursor is not None and cursor.prefix == prefix else None
        if total is None and (scan.kept is not None or scan.min_score != -math.inf):
            total = await self.admission.run(partial(self.exact.total, scan, question.table))
        hits = answer.queries[0]
        following = None
        if not isinstance(hits, ImageError) and len(hits) == scan.k:
            chosen = scan.selection.filter
            following = Cursor(
                model=answer.model,
                table=question.table,
                after=LastHit(hits[-1].score, hits[-1].seq),
                query=question.compared,
                filter=None if chosen is None else json.loads(chosen.text),
                excluded=[*question.excluded],
                k=scan.k,
                min_score=scan.min_score,
                # A filter is counted quickly; scores of all images are not.
                total=None if scan.min_score == -math.inf else total,
                prefix=prefix,
            )
        return replace(answer, next=following, total=total)

    async def _completed(
        self,
        answer: SearchAnswer,
        question: Question,
        options: SearchOptions,
        model: Model,
        columns: Sequence[Column],
    ) -> SearchAnswer:
        """Adds facets and the explanation, if they are wanted."""
        if options.facets:
            facets = await self.admission.run(
                lambda: {
                    facet.name: self.columns.count(facet, column, options.selection, options.kept)
                    for facet, column in zip(options.counted, columns, strict=True)
                }
            )
            answer = replace(answer, facets=facets)
        hits, features = answer.queries[0], question.features
        if features is not None and not isinstance(hits, ImageError):
            seqs = [hit.seq for first in hits for hit in (first, *first.others)]
            codes = await self.admission.run(partial(self.queries.images.codes, seqs, model.id))
            explanation, hits = explained(features, hits, codes, model)
            answer = replace(answer, queries=[hits], explanation=explanation)
        return answer


def too_many_results(what: str) -> TooManyResults:
    return TooManyResults(
        f"k: the metadata of all results exceed {MAX_REPLY_METADATA:,} characters; ask for fewer "
        f"{what}"
    )
