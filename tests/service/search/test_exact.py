from typing import Any

import numpy as np
import pytest

from service.database.records import Change, Resolved
from service.errors import QueryOverflow
from service.search.exact import ExactSearch, ScanOptions, overlay
from service.search.hit import Hit


def test_a_search_with_many_results_looks_them_up_a_few_queries_at_a_time() -> None:
    unused: Any = None
    exact = ExactSearch(unused, unused, unused)
    sizes: list[int] = []

    def search(options: ScanOptions, tables: Any) -> list[list[Hit]]:
        sizes.append(len(tables))
        return [[Hit(str(table), 1.0, None, 1)] for table in tables]

    exact._search = search  # type: ignore[method-assign]
    tables: Any = range(64)
    for k, expected in ((10, [64]), (1000, [10] * 6 + [4]), (20_000, [1] * 64)):
        sizes.clear()
        hits = exact._scan(ScanOptions("m", k, -1.0), tables)
        assert [found[0].id for found in hits] == [str(n) for n in range(64)]
        assert sizes == expected


def resolved(*seqs: int, changes: tuple[Change, ...] = ()) -> Resolved:
    codes = {change.seq: change.codes["m"] for change in changes if change.codes}
    return Resolved({seq: (str(seq), None) for seq in seqs}, [*changes], True, "m", codes)


def test_changes_since_the_scan_are_laid_over_its_hits() -> None:
    luts = np.zeros((1, 2, 16), np.float32)
    luts[0, :, 1] = 0.25
    found = [[(3, 1.0), (4, 0.5), (5, 0.5)]]
    added = Change(9, 4, {"m": b"\x11"})  # replaces 4; its score is 0.5
    laid = overlay(luts, found, 10, resolved(3, 5, 9, changes=(added,)))
    assert laid == [[(3, 1.0), (5, 0.5), (9, 0.5)]]


def test_an_overlay_places_no_hit_after_the_last_of_k() -> None:
    luts = np.zeros((1, 2, 16), np.float32)
    found = [[(3, 1.0), (4, 0.5)]]
    added = Change(9, None, {"m": b"\x11"})  # its score is 0
    assert overlay(luts, found, 2, resolved(3, 4, 9, changes=(added,))) == found
    assert overlay(luts, found, 3, resolved(3, 4, 9, changes=(added,))) == [[*found[0], (9, 0.0)]]


@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
def test_a_query_that_overflows_is_refused_alone(value: float) -> None:
    unused: Any = None
    exact = ExactSearch(unused, unused, unused)
    table = np.zeros((2, 16), np.float32)
    table[:, 3] = value
    with pytest.raises(QueryOverflow, match="search for another image"):
        exact.submit(ScanOptions("m", 10, -1.0), [table])
    with pytest.raises(QueryOverflow):
        exact.parts(ScanOptions("m", 10, -1.0), [np.zeros((2, 16), np.float32), table])
    exact.close()
