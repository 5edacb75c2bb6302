"""Pictures -> the nearest stored ones."""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.engine import Row

from gpq.errors import ImageError
from gpq.model.model import Model
from service import problems
from service.catalogue.images import Catalogue
from service.concurrency import deadlines
from service.concurrency.admission import Gate
from service.concurrency.batcher import Batcher
from service.concurrency.futures import in_turn
from service.database.records import OtherModel, Resolved
from service.database.store import Store
from service.index.feed import Feed
from service.models.encoder import Encoder, Picture, scores
from service.problems import Problem
from service.settings import MAX_REPLY_METADATA
from service.telemetry import timing

SEARCH_TRIES = 8
SCANNED_TOGETHER = 64  # queries
RESOLVED_TOGETHER = 10_000  # hits, of which the metadata are in memory at the same time
SPARE = 16  # hits asked for beyond those needed, where some were taken out meanwhile

Found = list[tuple[int, float]]  # (seq, score), in order
R = TypeVar("R")
log = logging.getLogger("gpq.service")


@dataclass(frozen=True)
class Hit:
    """metadata: a JSON object as text, or None."""

    id: str
    score: float
    metadata: str | None


@dataclass(frozen=True)
class Answer:
    """The hits of each query, or what is wrong with it; what was searched with, and by which
    model."""

    queries: list[list[Hit] | Problem]
    query: Literal["image", "original", "code"]
    model: str


class Stored(NamedTuple):
    """A stored picture as a query: decoded, or (M,K) float32 of its code. same: to leave out."""

    query: Picture | NDArray[np.float32]
    same: set[str]


class Asked(NamedTuple):
    """Queries of which are answered together."""

    model: str
    k: int
    min_score: float


class Wanted(Protocol):
    """What is asked of a search beside the picture."""

    @property
    def k(self) -> int: ...

    @property
    def min_score(self) -> float: ...

    @property
    def exclude_same(self) -> bool: ...


class Searcher:
    """Scores below ``min_score`` are no hits. A search by one picture goes from queue to queue and
    holds no thread while it waits; what else blocks takes a turn of ``gate``.

    A search is by one model, the active one; where another becomes active meanwhile, it is
    done again by that.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: Store,
        feed: Feed,
        encoder: Encoder,
        gate: Gate,
        watch: Callable[[int], object] = lambda n: None,
    ) -> None:
        self.catalogue, self.store, self.feed = catalogue, store, feed
        self.encoder, self.gate = encoder, gate
        self._watch = watch
        self._scans: Batcher[Asked, NDArray[np.float32], list[Hit]] = Batcher(
            "scan", self._search_all, SCANNED_TOGETHER
        )

    def close(self) -> None:
        self._scans.close()

    async def by_pictures(self, files: Sequence[BinaryIO], options: Wanted) -> Answer:
        """The nearest to each; what is wrong with one stands in its place."""
        return await self._by_active(lambda model: self._by_pictures(files, options, model))

    async def by_id(self, id: str, options: Wanted) -> Answer:
        """Nearest to a stored picture, itself included. Raises Problem 404."""
        return await self._by_active(lambda model: self._by_id(id, options, model))

    async def _by_active(self, search: Callable[[Model], Awaitable[R]]) -> R:
        for _ in range(SEARCH_TRIES):
            model = self.encoder.models[self.feed.model]
            try:
                return await search(model)
            except OtherModel:
                await self.gate.run(self.catalogue.catch_up)
        raise problems.unavailable("models change faster than can be searched; try again")

    async def _by_pictures(
        self, files: Sequence[BinaryIO], options: Wanted, model: Model
    ) -> Answer:
        left_out: list[set[str]] = [set()] * len(files)
        if options.exclude_same:
            left_out = await self.gate.run(lambda: [self._same(file) for file in files])
        asked = Asked(model.id, options.k + max(map(len, left_out)), options.min_score)
        if len(files) == 1:
            near = [await self._near_one(files[0], asked, model)]
        else:
            near = await self._near_many(files, asked, model)
        queries = [
            entry
            if isinstance(entry, Problem)
            else [hit for hit in entry if hit.id not in same][: options.k]
            for entry, same in zip(near, left_out, strict=True)
        ]
        return Answer(queries, "image", model.id)

    async def _near_one(self, file: BinaryIO, asked: Asked, model: Model) -> list[Hit] | Problem:
        try:
            found: list[list[Hit]] = await in_turn(
                self.encoder.decode(partial(_read, file), model),
                lambda picture: self.encoder.lut(picture, model),
                lambda lut: self._scans.ask(asked, lut),
            )
            return found[0]
        except ImageError as error:
            return problems.of_image(error)

    async def _near_many(
        self, files: Sequence[BinaryIO], asked: Asked, model: Model
    ) -> list[list[Hit] | Problem]:
        async with self.gate.turn():  # for the pixels of all, which take much memory
            accepted = await self.gate.blocking(
                lambda: self.encoder.accept(map(_read, files), [model])
            )
            good = [picture for picture in accepted if isinstance(picture, Picture)]
            luts = await self.encoder.luts(good, model)
        found: list[list[Hit]] = []
        characters = 0
        async with aclosing(self._scans.parts(asked, luts)) as parts:
            async for part in parts:
                found += part
                characters += sum(len(hit.metadata or "") for hits in part for hit in hits)
                if characters > MAX_REPLY_METADATA:
                    raise Problem(
                        422,
                        "too-many-results",
                        f"k: the metadata of all results are more than {MAX_REPLY_METADATA:,} "
                        "characters; ask for fewer results, or for fewer images at a time",
                    )
        hits = iter(found)
        return [entry if isinstance(entry, Problem) else next(hits) for entry in accepted]

    def _same(self, file: BinaryIO) -> set[str]:
        """Ids of the stored pictures that have its bytes."""
        return self.store.reader.ids_of(hashlib.sha256(_read(file)).hexdigest())

    async def _by_id(self, id: str, options: Wanted, model: Model) -> Answer:
        k, min_score = options.k, options.min_score
        stored = await self.gate.run(lambda: self._stored(id, options, model))
        lut = stored.query
        if by_original := isinstance(lut, Picture):
            lut = (await in_turn(self.encoder.lut(lut, model)))[0]
        asked = Asked(model.id, k + len(stored.same), min_score)
        hits: list[Hit] = (await in_turn(self._scans.ask(asked, [lut])))[0]
        if options.exclude_same:
            hits = [hit for hit in hits if hit.id not in stored.same][:k]
        elif id not in [hit.id for hit in hits]:
            # Lost among ties, or its own code is not its nearest: it belongs to its results.
            own = await self.gate.run(lambda: self._own_hit(id, lut, model))
            if own.score >= min_score:
                hits[k - 1 :] = [own]
        return Answer([hits], "original" if by_original else "code", model.id)

    def _stored(self, id: str, options: Wanted, model: Model) -> Stored:
        row = self.catalogue.get(id)
        same = self.store.reader.ids_of(row.sha256) | {id} if options.exclude_same else set()
        try:
            data = self.catalogue.originals.get(row.sha256)
            if data is not None:
                decoding = self.encoder.decode(lambda: data, model)
                return Stored(deadlines.current().result_of(decoding), same)
        # Limits were lowered, the file was damaged, or the store does not answer.
        except (ImageError, Problem) as error:
            log.warning("original %s cannot be read, searching by code: %s", row.sha256, error)
        code = self._code_of(row, model)
        return Stored(self.encoder.lut_of_code(code, model)[0], same)

    def _own_hit(self, id: str, lut: NDArray[np.float32], model: Model) -> Hit:
        row = self.catalogue.get(id)
        score = float(scores(lut[None], [self._code_of(row, model)])[0, 0])
        return Hit(id, score, row.metadata)

    def _code_of(self, row: Row[Any], model: Model) -> bytes:
        """Of the picture, also where it was put anew since its row was read.

        Raises OtherModel where the model was taken out, Problem 404 where the picture was.
        """
        code = self.store.reader.code(row.seq, model.id)
        if code is None:
            code = self.store.reader.code(self.catalogue.get(row.id).seq, model.id)
        if code is None:
            raise OtherModel(f"{row.id} has no code of model {model.id}")
        return code

    def _search_all(self, wanted: Asked, tables: Sequence[NDArray[np.float32]]) -> list[list[Hit]]:
        self._watch(len(tables))
        most = max(1, RESOLVED_TOGETHER // wanted.k)
        return [
            hits
            for first in range(0, len(tables), most)
            for hits in self._search_some(wanted, tables[first : first + most])
        ]

    def _search_some(self, wanted: Asked, tables: Sequence[NDArray[np.float32]]) -> list[list[Hit]]:
        """The exact hits of one moment after they were asked for, whoever writes meanwhile: the
        index at some feed number, and on top of it what the database holds since.

        Raises OtherModel where another model became active, Problem 503 where writers outrun
        every try.
        """
        model, k, min_score = wanted
        luts, asked = np.stack(tables), k
        for _ in range(SEARCH_TRIES):
            applied = self.feed.applied  # before the search, which sees at least this
            index = self.feed.indexes.get(model)
            if index is None:
                raise OtherModel(f"the codes of model {model} are not here")
            with timing.stage("scan"):
                near = index.search(luts, asked)
            with timing.stage("db"):
                resolved = self.store.reader.resolve(
                    {seq for found in near for seq, _ in found}, applied
                )
            if resolved.model != model:
                raise OtherModel(f"the active model is {resolved.model}, not {model}")
            if not resolved.whole:
                self.catalogue.catch_up()
                continue
            ranked = _overlay(luts, near, asked, resolved)
            short = max(
                0 if len(found) < asked or found[-1][1] < min_score else k - len(best)
                for found, best in zip(near, ranked, strict=True)
            )
            if short <= 0:
                return [
                    [_hit(seq, score, resolved) for seq, score in best[:k] if score >= min_score]
                    for best in ranked
                ]
            # What was taken out meanwhile leaves the index, and more is asked for.
            self.catalogue.catch_up()
            asked += short + SPARE
        raise problems.unavailable("pictures change faster than they can be searched; try again")


def _read(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _overlay(
    luts: NDArray[np.float32], near: list[Found], asked: int, resolved: Resolved
) -> list[Found]:
    """Hits with the changes applied, in order. Of ``asked`` hits, what would come after the
    last is not known: nothing is placed there."""
    fresh = [change for change in resolved.changes if change.seq in resolved.stored]
    of_fresh = scores(luts, [change.codes[str(resolved.model)] for change in fresh])
    overlaid = []
    for found, row in zip(near, of_fresh.tolist(), strict=True):
        current = {seq: score for seq, score in found if seq in resolved.stored}
        current |= {change.seq: score for change, score in zip(fresh, row, strict=True)}
        ranked = sorted(current.items(), key=_rank)
        if len(found) == asked:
            ranked = [hit for hit in ranked if _rank(hit) <= _rank(found[-1])]
        overlaid.append(ranked)
    return overlaid


def _rank(hit: tuple[int, float]) -> tuple[float, int]:
    seq, score = hit
    return -score, seq


def _hit(seq: int, score: float, resolved: Resolved) -> Hit:
    id, metadata = resolved.stored[seq]
    return Hit(id, score, metadata)
