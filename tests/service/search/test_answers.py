"""Tests of how many hits a search for groups looks at."""

import asyncio
import json
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.concurrency.admission import Admission
from service.errors import TooManyResults
from service.search import answers
from service.search.answers import Answers, Question, SearchAnswer
from service.search.exact import ScanOptions
from service.search.groups import Grouping
from service.search.hit import Hit
from service.search.options import SearchOptions

MODEL: Any = SimpleNamespace(id="m")


class Ranking:
    """A search whose ranking is given; ``asked``: how many hits each scan wanted."""

    def __init__(self, groups: list[Any]) -> None:
        self.hits = [
            Hit(f"i{n}", -float(n), json.dumps({"g": group}), n) for n, group in enumerate(groups)
        ]
        self.asked: list[int] = []

    def submit(self, scan: ScanOptions, luts: Any) -> Future[list[list[Hit]]]:
        first = 0 if scan.after is None else scan.after.seq + 1
        self.asked.append(scan.k)
        found: Future[list[list[Hit]]] = Future()
        found.set_result([self.hits[first : first + scan.k]])
        return found


def search(ranking: Ranking, k: int, size: int) -> SearchAnswer:
    unused: Any = None
    exact: Any = ranking
    admission = Admission(limit=9, threads=1)
    options = SearchOptions(k, -1.0, exclude_same=False, grouping=Grouping(("g",), size))
    question = Question(np.zeros((1, 16), np.float32), "image")

    async def main() -> SearchAnswer:
        with admission.admit():
            return await Answers(unused, exact, unused, admission).answer(question, options, MODEL)

    return asyncio.run(main())


def groups(answer: SearchAnswer) -> list[tuple[Any, list[str]]]:
    (hits,) = answer.queries
    assert isinstance(hits, list)
    return [(hit.group, [each.id for each in (hit, *hit.others)]) for hit in hits]


def test_scans_go_on_until_the_groups_are_full() -> None:
    ranking = Ranking(["a"] * 1000 + ["b"] + ["a"] * 1000 + ["b", "c"])
    answer = search(ranking, 2, 2)
    assert groups(answer) == [("a", ["i0", "i1"]), ("b", ["i1000", "i2001"])]
    assert answer.complete is True
    assert ranking.asked == [256, 512, 1024, 2048]
    one = Ranking(["a"] * 1000)
    assert groups(search(one, 1, 1)) == [("a", ["i0"])]
    assert one.asked == [256]


def test_a_search_that_looked_at_many_hits_says_that_it_is_not_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert answers.MOST_GROUPED == 100_000
    monkeypatch.setattr(answers, "MOST_GROUPED", 1000)
    ranking = Ranking(["a"] * 999 + ["b", "c"])
    answer = search(ranking, 3, 2)
    assert groups(answer) == [("a", ["i0", "i1"]), ("b", ["i999"])]
    assert answer.complete is False
    assert sum(ranking.asked) == 1000
    assert search(Ranking(["a"] * 999), 3, 2).complete is True


def test_an_image_that_was_replaced_meanwhile_comes_once() -> None:
    ranking = Ranking(["a"] * 600)
    ranking.hits[300] = Hit("i0", -300.0, '{"g": "b"}', 300)
    assert groups(search(ranking, 5, 1)) == [("a", ["i0"])]


def test_groups_with_too_much_metadata_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_REPLY_METADATA", 100)
    assert len(groups(search(Ranking([*range(10)]), 10, 1))) == 10
    with pytest.raises(TooManyResults, match="fewer groups"):
        search(Ranking(["x" * 20 + str(n) for n in range(10)]), 10, 1)
