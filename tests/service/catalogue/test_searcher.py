import asyncio
import io
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest

from gpq.model.model import Model
from service.catalogue.searcher import Asked, Hit, Searcher
from service.concurrency.admission import Gate
from service.models.encoder import Picture
from service.problems import Problem


class Encoder:
    """Tells what is begun and ended; looks while others could go on."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def accept(self, uploads: Any, models: Any) -> list[Picture]:
        self.told.append("pixels")
        return [Picture(1, 1, {}) for _ in uploads]

    async def luts(self, pictures: Any, model: Any) -> list[np.ndarray]:
        await asyncio.sleep(0.05)
        self.told.append("tables")
        return [np.zeros((1, 16), np.float32)] * len(pictures)


class Scans:
    """The same hits for each, two queries at a time."""

    def __init__(self, *hits: Hit) -> None:
        self.hits, self.asked = [*hits], 0

    async def parts(self, key: Any, items: Any) -> AsyncGenerator[list[list[Hit]], None]:
        for first in range(0, len(items), 2):
            self.asked += 2
            yield [self.hits for _ in items[first : first + 2]]


def searched(scans: Scans, pictures: int) -> list[list[Hit] | Problem]:
    nothing: Any = None
    encoder: Any = Encoder()
    searcher = Searcher(nothing, nothing, nothing, encoder, Gate(limit=9, threads=1))
    searcher._scans = scans  # type: ignore[assignment]
    files = [io.BytesIO(b"a") for _ in range(pictures)]
    return asyncio.run(searcher._near_many(files, Asked("m", 1, -1.0), nothing))


def test_a_batch_whose_metadata_are_too_much_is_told_so_before_all_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.catalogue.searcher.MAX_REPLY_METADATA", 100)
    hit = Hit("a", 1.0, '{"n":"' + "x" * 12 + '"}')  # 20 characters
    none = Hit("b", 1.0, None)
    assert searched(Scans(hit, none), 5) == [[hit, none]] * 5
    scans = Scans(hit, none)
    with pytest.raises(Problem) as caught:
        searched(scans, 9)
    assert caught.value.status == 422 and "fewer" in caught.value.detail
    assert scans.asked == 6


def test_many_results_are_looked_up_some_queries_at_a_time() -> None:
    nothing: Any = None
    searcher = Searcher(nothing, nothing, nothing, nothing, Gate(limit=9, threads=1))
    sizes: list[int] = []

    def some(wanted: Asked, tables: Any) -> list[list[Hit]]:
        sizes.append(len(tables))
        return [[Hit(str(table), 1.0, None)] for table in tables]

    searcher._search_some = some  # type: ignore[method-assign]
    tables: Any = range(64)
    for k, expected in ((10, [64]), (1000, [10] * 6 + [4]), (20_000, [1] * 64)):
        sizes.clear()
        hits = searcher._search_all(Asked("m", k, -1.0), tables)
        assert [found[0].id for found in hits] == [str(n) for n in range(64)]
        assert sizes == expected


def test_only_searches_that_have_a_turn_hold_the_pixels_of_many_pictures() -> None:
    nothing: Any = None
    encoder: Any = Encoder()

    async def main() -> None:
        searcher = Searcher(nothing, nothing, nothing, encoder, Gate(limit=9, threads=1))
        searcher._scans = Scans()  # type: ignore[assignment]
        model: Model = nothing
        files = [io.BytesIO(b"a"), io.BytesIO(b"b")]
        asked = Asked("m", 1, -1.0)
        await asyncio.gather(*(searcher._near_many(files, asked, model) for _ in range(3)))

    asyncio.run(main())
    assert encoder.told == ["pixels", "tables"] * 3
