"""Tests that pages of hits follow each other exactly, on any process, also during writes."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx

from harness.images import png
from harness.server import Server
from tests.writers import writing

N = 40


def fill(server: Server, count: int = N) -> None:
    """Stores images; every third one is a copy of another, with the same score."""
    images = [png(n - n % 3 if n % 3 == 1 else n) for n in range(count)]
    reply = server.index(
        *images,
        ids=json.dumps([f"i{n:03}" for n in range(count)]),
        metadata=json.dumps([{"n": n % 4} for n in range(count)]),
    )
    assert reply.status_code == 200, reply.text


def go_on(server: Server, cursor: str, **more: Any) -> httpx.Response:
    return server.http.post("/search", json={"cursor": cursor, **more})


def pages(servers: list[Server], first: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yields pages until the end, each from another server."""
    page, turn = first.json(), 0
    assert first.status_code == 200, first.text
    yield page
    while page["next_cursor"]:
        turn += 1
        reply = go_on(servers[turn % len(servers)], page["next_cursor"])
        assert reply.status_code == 200, reply.text
        page = reply.json()
        yield page


def ids_of(found: Iterator[dict[str, Any]]) -> list[str]:
    return [hit["id"] for page in found for hit in page["results"]]


def test_pages_are_the_whole_ranking(servers: list[Server]) -> None:
    fill(servers[0])
    whole = servers[0].search(png(3), k=1000).json()["results"]
    for k in (1, 7, N, N + 1):
        found = list(pages(servers, servers[0].search(png(3), k=k, pages=True)))
        assert [hit for page in found for hit in page["results"]] == whole
        assert found[0]["total"] is None
        assert {page["model"] for page in found} == {found[0]["model"]}


def test_pages_of_every_kind_of_search(servers: list[Server]) -> None:
    server = servers[0]
    fill(server)
    chosen = {"n": {"any": [1, 2]}}
    whole = server.search(png(3), k=1000, filter=json.dumps(chosen)).json()["results"]
    first = server.search(png(3), k=6, pages=True, filter=json.dumps(chosen))
    found = list(pages(servers, first))
    assert [hit for page in found for hit in page["results"]] == whole
    assert {page["total"] for page in found} == {len(whole)} == {N // 2}
    by_id = {"id": "i005", "k": 6, "pages": True, "exclude_same": True}
    whole = server.http.post("/search", json={**by_id, "k": 1000, "pages": False}).json()["results"]
    assert ids_of(pages(servers, server.http.post("/search", json=by_id))) == [
        hit["id"] for hit in whole
    ]
    scores = [hit["score"] for hit in whole]
    least = scores[len(scores) // 2]
    first = server.search(png(3), k=4, pages=True, min_score=least)
    whole = server.search(png(3), k=1000, min_score=least).json()["results"]
    assert ids_of(pages(servers, first)) == [hit["id"] for hit in whole]
    page = server.search(png(3), k=4, pages=True).json()
    assert len(go_on(server, page["next_cursor"], k=9).json()["results"]) == 9


def test_images_that_are_not_written_meanwhile_come_exactly_once(servers: list[Server]) -> None:
    fill(servers[0], 90)

    def write(number: int, turn: int) -> httpx.Response:
        mine = [f"i{n:03}" for n in range(60 + number, 90, 4)]
        server, id = servers[number % 2], mine[turn % len(mine)]
        if turn % 3 == 0:
            return server.http.delete(f"/images/{id}")
        return server.index(png(1000 * number + turn), ids=json.dumps([id]))

    with writing(write):
        for seed in range(6):
            quiet = {f"i{n:03}" for n in range(60)}
            found = list(pages(servers, servers[0].search(png(seed), k=5, pages=True)))
            ids = [id for id in ids_of(iter(found)) if id in quiet]
            assert sorted(ids) == sorted(quiet)
            scores = [hit["score"] for page in found for hit in page["results"]]
            assert scores == sorted(scores, reverse=True)


def test_totals_follow_changes(servers: list[Server]) -> None:
    first, second = servers
    fill(first, 12)
    chosen = json.dumps({"n": 1})

    def total() -> int:
        return second.search(png(0), k=1, pages=True, filter=chosen).json()["total"]

    assert total() == 3
    first.http.patch("/images/i001", json={"metadata": {"n": 2}})
    assert total() == 2
    first.http.patch("/images/i000", json={"metadata": {"n": 1}})
    first.index(png(50), png(51), ids='["new", "i005"]', metadata='[{"n": 1}, {"n": 1}]')
    assert total() == 4
    first.http.delete("/images/i009")
    first.http.delete("/images/new")
    assert total() == 2


def test_a_cursor_that_was_not_made_here_is_refused(servers: list[Server]) -> None:
    server = servers[0]
    fill(server, 4)
    cursor = server.search(png(0), k=2, pages=True).json()["next_cursor"]
    raw = base64.urlsafe_b64decode(cursor)
    changed = [raw[:40] + bytes([raw[40] ^ 1]) + raw[41:], raw[:-4], b"", raw[:32], b"\0" * 100]
    for text in (*(base64.urlsafe_b64encode(each).decode() for each in changed), "ä", "x", "!"):
        reply = go_on(server, text)
        assert (reply.status_code, reply.json()["code"]) == (422, "invalid-cursor"), text
    for body in ({"cursor": 5}, {"cursor": cursor, "id": "i000"}, {"cursor": "x" * 40_000}):
        assert server.http.post("/search", json=body).status_code == 422
    reply = server.http.post("/search/batch", files={"images": png(0)}, data={"pages": True})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid-field")
