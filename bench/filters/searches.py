"""The part of a service that searches, over a database with metadata to filter by."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.database import sqlite_url
from gpq import scan
from harness.postgres import Postgres
from service.database.store import Store
from service.filters.masks import Masks
from service.filters.selection import Selection
from service.index.follower import FeedFollower
from service.index.index import Codes, Index
from service.search.exact import ExactSearch, ScanOptions

K = 10
SHARES = (0.5, 0.01, 0.001)
FILTER_BYTES = 256 * 2**20


def rank_of(seq: int) -> int:
    """Returns the ``rank`` of an image; ranks are spread evenly over 0 to 999."""
    return seq * 7919 % 1000


def metadata(seq: int) -> str:
    """Returns metadata of about 100 bytes."""
    rank = rank_of(seq)
    values = {"rank": rank, "name": f"item-{seq}", "brand": f"b{rank:03}", "tags": ["new", "red"]}
    return json.dumps({**values, "size": {"width": seq % 90}}, separators=(",", ":"))


def filters() -> dict[str, dict[str, Any]]:
    """Returns filters by what they choose."""
    by_number = {f"rank, {s:.1%}": {"rank": {"lt": round(1000 * s)}} for s in SHARES}
    by_string = {f"brand, {s:.1%}": {"brand": {"lt": f"b{round(1000 * s):03}"}} for s in SHARES[1:]}
    return by_number | by_string


class Searches:
    """The part of a service that searches, over one database."""

    def __init__(self, url: str, M: int, model: str) -> None:
        def new_index(id: str, codes: Codes | None) -> Index:
            return Index(id, M, "auto", codes)

        self.store, self.model, self.M = Store(url), model, M
        self.follower = FeedFollower(self.store, new_index, model)
        self.follower.load()
        self.masks = Masks(self.store.feed, self.store.fields, self.follower, FILTER_BYTES)
        self.exact = ExactSearch(self.store.feed, self.follower, self.masks)

    def close(self) -> None:
        self.exact.close()
        self.store.close()

    def ids(self, lut: NDArray[np.float32], selection: Selection) -> list[str]:
        kept = None if selection.is_everything else self.masks.find(selection, self.model)
        options = ScanOptions(self.model, K, -1.0, selection, kept=kept)
        (hits,) = self.exact.submit(options, [lut]).result()
        return [hit.id for hit in hits]

    def expected(self, lut: NDArray[np.float32], rows: NDArray[np.bool_]) -> list[str]:
        """Returns the hits of the reference among the codes of some rows."""
        codes = self.follower.index.codes()
        chosen = np.flatnonzero(rows)
        best, _ = scan.build(codes.packed[chosen], self.M, "reference").search(lut[None], K)
        return [f"{codes.seqs[chosen[row]]:032x}" for row in best[0] if row >= 0]


@contextmanager
def databases(folder: Path, kinds: list[str]) -> Iterator[dict[str, str]]:
    """Returns the URLs of empty databases, by kind."""
    with ExitStack() as stack:
        urls = {"sqlite": sqlite_url(folder)}
        if "postgres" in kinds:
            urls["postgres"] = stack.enter_context(Postgres()).create_database()
        yield {kind: urls[kind] for kind in kinds}
