"""Tests of searches by several examples."""

import json
from typing import Any

import pytest

from harness.images import png
from harness.server import Server

IDS = [f"example-{n}" for n in range(12)]
ONLY = json.dumps({"example": True})


@pytest.fixture(scope="module")
def filled(server: Server) -> Server:
    metadata = json.dumps([{"example": True, "even": n % 2 == 0} for n in range(len(IDS))])
    server.index(*map(png, range(len(IDS))), ids=json.dumps(IDS), metadata=metadata)
    return server


def scores(reply: Any) -> dict[str, float]:
    assert reply.status_code == 200, reply.text
    return {hit["id"]: hit["score"] for hit in reply.json()["results"]}


def alone(server: Server, seed: int) -> dict[str, float]:
    return scores(server.search(png(seed), k=1000, filter=ONLY))


def by_ids(server: Server, **more: Any) -> Any:
    body = {"k": 1000, "filter": json.loads(ONLY), **more}
    return server.http.post("/search", json=body)


def test_scores_are_weighted_means_over_the_examples(filled: Server) -> None:
    one, two, three = (alone(filled, seed) for seed in (1, 2, 3))
    body = {
        "positive": [{"id": "example-1"}, {"id": "example-2", "weight": 3}],
        "negative": [{"id": "example-3", "weight": 2}],
    }
    reply = by_ids(filled, **body)
    assert reply.json()["query"] == "examples"
    expected = {id: (one[id] + 3 * two[id] - three[id]) / 4 for id in IDS}
    assert scores(reply) == pytest.approx(expected, abs=1e-5)
    order = [hit["score"] for hit in reply.json()["results"]]
    assert order == sorted(order, reverse=True)


def test_uploads_and_ids_mix_in_a_form(filled: Server) -> None:
    one, two, three = (alone(filled, seed) for seed in (1, 2, 3))
    parts = [
        ("positive", ("a.png", png(1))), ("positive", (None, "example-2")),
        ("negative", (None, "example-3")),
    ]  # fmt: skip
    fields = {"k": "1000", "filter": ONLY}
    reply = filled.http.post("/search", files=parts, data=fields)
    expected = {id: (one[id] + two[id] - three[id] / 2) / 2 for id in IDS}
    assert scores(reply) == pytest.approx(expected, abs=1e-5)
    single = filled.http.post("/search", files=parts[:1], data=fields)
    assert scores(single) == pytest.approx(one, abs=1e-5)


def test_scores_below_the_range_are_hits_too(filled: Server) -> None:
    negative = [{"id": id, "weight": 100} for id in IDS[4:10]]
    reply = by_ids(filled, positive=[{"id": "example-1", "weight": 0.01}], negative=negative)
    found = scores(reply)
    assert found.keys() == set(IDS) and min(found.values()) < -1000


def test_examples_are_left_out_paged_and_filtered(filled: Server) -> None:
    body = {"positive": [{"id": "example-1"}, {"id": "example-4"}], "exclude_same": True}
    whole = list(scores(by_ids(filled, **body)))
    assert set(whole) == set(IDS) - {"example-1", "example-4"}
    page = by_ids(filled, **body, pages=True, **{"k": 4}).json()
    assert page["total"] == len(IDS)
    found = [hit["id"] for hit in page["results"]]
    while page["next_cursor"]:
        page = filled.http.post("/search", json={"cursor": page["next_cursor"]}).json()
        assert page["query"] == "examples"
        found += [hit["id"] for hit in page["results"]]
    assert found == whole
    even = scores(by_ids(filled, **body, filter={"even": True, "example": True}))
    assert list(even) == [id for id in whole if int(id[8:]) % 2 == 0]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"positive": []}, 422, "positive"),
        ({"negative": [{"id": "example-1"}]}, 422, "positive"),
        ({"positive": [{"id": "example-1"}] * 17}, 422, "positive"),
        ({"positive": [{"id": "a b"}]}, 422, "positive.0.id"),
        ({"positive": [{"id": "example-1", "weight": 1e-40}]}, 422, "positive.0.weight"),
        ({"positive": [{"id": "example-1", "weight": 1e9}]}, 422, "positive.0.weight"),
        ({"positive": ["example-1"]}, 422, "positive.0"),
        ({"positive": [{"id": "missing"}]}, 404, "missing"),
        ({"positive": [{"id": "example-1"}], "id": "example-2"}, 422, "id"),
        (
            {
                "positive": [{"id": "example-1"}],
                "region": {"x": 0, "y": 0, "width": 1, "height": 0.5},
            },
            422,
            "region",
        ),
    ],
)
def test_examples_that_cannot_be_used_are_named(
    filled: Server, body: dict[str, Any], status: int, detail: str
) -> None:
    reply = filled.http.post("/search", json=body)
    assert reply.status_code == status and detail in reply.json()["detail"], reply.text


def test_parts_that_cannot_be_used_are_named(filled: Server) -> None:
    for parts, status, detail in (
        ([("negative", (None, "example-1"))], 422, "positive"),
        ([("positive", (None, "a b"))], 422, "positive"),
        ([("positive", (None, "example-1"))] * 17, 422, "positive"),
        ([("positive", ("x", b"no image"))], 415, ""),
        ([("positive", (None, "example-1")), ("image", ("x", png(0)))], 422, "image"),
    ):
        reply = filled.http.post("/search", files=parts)
        assert reply.status_code == status and detail in reply.json()["detail"], reply.text
