import asyncio
import io
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpq.errors import ImageError
from service.concurrency import wait_budget
from service.concurrency.admission import Admission
from service.database.records import StoredImage
from service.decoding.decoder import DecodedImage
from service.errors import TooManyResults, WaitedTooLong
from service.search.hit import Hit
from service.search.options import SearchOptions
from service.search.queries import Queries
from service.search.searcher import Searcher


class Encoding:
    """A decoder and an encoder that record the order of their calls."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.models = {"m": SimpleNamespace(id="m")}

    def decode_all(self, uploads: Any, models: Any, region: Any) -> list[DecodedImage]:
        self.events.append("pixels")
        return [DecodedImage(1, 1, {}) for _ in uploads]

    async def luts(self, images: Any, model: Any) -> list[np.ndarray]:
        await asyncio.sleep(0.05)
        self.events.append("tables")
        return [np.zeros((1, 16), np.float32)] * len(images)


class Scans:
    """A scanner that yields the same hits for each query, two queries at a time."""

    def __init__(self, *hits: Hit) -> None:
        self.hits, self.scanned = [*hits], 0

    async def parts(self, options: Any, luts: Any) -> AsyncGenerator[list[list[Hit]], None]:
        for first in range(0, len(luts), 2):
            self.scanned += 2
            yield [self.hits for _ in luts[first : first + 2]]


def searcher(scans: Scans, encoding: Encoding) -> Searcher:
    unused: Any = None
    follower: Any = SimpleNamespace(model="m")
    coder: Any = encoding
    scanner: Any = scans
    admission = Admission(limit=9, threads=1)
    queries = Queries(unused, unused, coder)
    return Searcher(queries, coder, follower, scanner, unused, admission)


async def search(searcher: Searcher, images: int) -> list[list[Hit] | ImageError]:
    files = [io.BytesIO(b"a") for _ in range(images)]
    options = SearchOptions(k=10, min_score=-1.0, exclude_same=False)
    return (await searcher.by_uploads(files, options)).queries


def test_a_batch_with_too_much_metadata_fails_before_all_of_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.search.searcher.MAX_REPLY_METADATA", 100)
    hit = Hit("a", 1.0, '{"n":"' + "x" * 12 + '"}', 1)  # 20 characters
    bare = Hit("b", 1.0, None, 2)
    found = asyncio.run(search(searcher(Scans(hit, bare), Encoding()), 5))
    assert found == [[hit, bare]] * 5
    scans = Scans(hit, bare)
    with pytest.raises(TooManyResults, match="fewer"):
        asyncio.run(search(searcher(scans, Encoding()), 9))
    assert scans.scanned == 6


def test_a_search_by_id_that_waits_too_long_fails_and_is_not_answered_by_code() -> None:
    unused: Any = None
    stored = StoredImage("a", 1, "0" * 64, 1, 1, 1, "", None)
    images: Any = SimpleNamespace(get=lambda id: stored)
    originals: Any = SimpleNamespace(get=lambda sha256: b"bytes")
    budget = wait_budget.current
    # Its turn never comes.
    decoder: Any = SimpleNamespace(decode_one=lambda *_: budget().result_of(Future()))
    follower: Any = SimpleNamespace(model="m")
    admission = Admission(limit=9, threads=1, seconds=0.05)
    coder: Any = Encoding()
    queries = Queries(images, originals, decoder)
    queue = Searcher(queries, coder, follower, unused, unused, admission)

    async def main() -> None:
        with admission.admit():
            await queue.by_id("a", SearchOptions(k=10, min_score=-1.0, exclude_same=False))

    with pytest.raises(WaitedTooLong):
        asyncio.run(main())


def test_only_the_search_whose_turn_it_is_holds_the_pixels_of_its_images() -> None:
    encoding = Encoding()

    async def main() -> None:
        shared = searcher(Scans(), encoding)
        await asyncio.gather(*(search(shared, 2) for _ in range(3)))

    asyncio.run(main())
    assert encoding.events == ["pixels", "tables"] * 3
