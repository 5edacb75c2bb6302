"""Tests of groups, facets and totals, which must be exact on every process."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.images import png
from harness.server import Server
from service.filters import columns
from tests.writers import writing

N = 48
BRANDS = ("acme", "bird", 3, True, None)


def metadata(n: int) -> dict[str, Any] | None:
    if n % 11 == 0:
        return None
    tags = [f"t{n % 3}", f"t{n % 4}", f"t{n % 3}"]
    return {"product": {"no": n % 7}, "brand": BRANDS[n % 5], "tags": tags}


def fill(server: Server) -> None:
    reply = server.index(
        *(png(n) for n in range(N)),
        ids=json.dumps([f"i{n:02}" for n in range(N)]),
        metadata=json.dumps([metadata(n) for n in range(N)]),
    )
    assert reply.status_code == 200, reply.text


def grouped(ranking: list[dict], field: Any, k: int, size: int) -> list[tuple[Any, list[str]]]:
    """Groups a whole ranking as the service must. ``field``: returns the values of metadata."""
    groups: dict[Any, list[str]] = {}
    for hit in ranking:
        for value in dict.fromkeys(field(hit["metadata"] or {})):
            groups.setdefault(value, []).append(hit["id"])
    return [(value, ids[:size]) for value, ids in list(groups.items())[:k]]


def product(metadata: dict) -> list[int]:
    return [metadata["product"]["no"]] if "product" in metadata else []


def tags(metadata: dict) -> list[str]:
    return metadata.get("tags", [])


def groups_of(reply: dict) -> list[tuple[Any, list[str]]]:
    return [
        (hit["group"], [hit["id"], *(other["id"] for other in hit["others"])])
        for hit in reply["results"]
    ]


def test_groups_are_those_of_the_whole_ranking(servers: list[Server]) -> None:
    first, second = servers
    fill(first)
    ranking = second.search(png(3), k=1000).json()["results"]
    for k, size in ((1, 1), (3, 2), (7, 100), (50, 3)):
        reply = second.search(png(3), k=k, group_by="product.no", group_size=size).json()
        assert groups_of(reply) == grouped(ranking, product, k, size)
        assert reply["complete"] is True
        assert [hit["score"] for hit in reply["results"]] == sorted(
            (hit["score"] for hit in reply["results"]), reverse=True
        )
        reply = second.search(png(3), k=k, group_by="tags", group_size=size).json()
        assert groups_of(reply) == grouped(ranking, tags, k, size)
    by_id = {"id": "i05", "k": 4, "group_by": "product.no", "exclude_same": True}
    ranking = first.http.post("/search", json={"id": "i05", "k": 1000}).json()["results"]
    rest = [hit for hit in ranking if hit["id"] != "i05"]
    reply = first.http.post("/search", json=by_id).json()
    assert groups_of(reply) == grouped(rest, product, 4, 1)
    least = ranking[9]["score"]
    reply = first.http.post("/search", json={**by_id, "k": 50, "min_score": least}).json()
    assert groups_of(reply) == grouped(
        [hit for hit in rest if hit["score"] >= least], product, 50, 1
    )
    examples = {"positive": [{"id": "i01"}, {"id": "i02"}], "group_by": "tags", "k": 2}
    assert len(first.http.post("/search", json=examples).json()["results"]) == 2


def test_values_of_different_types_are_different_groups(servers: list[Server]) -> None:
    first, second = servers
    values = [1, 1.0, True, "1", [1, 1], None, {"a": 1}, [[1]]]
    first.index(
        *(png(n) for n in range(len(values))),
        metadata=json.dumps([{"v": value} for value in values]),
    )
    reply = second.search(png(0), k=100, group_by="v", group_size=9, facets="v").json()
    sizes = {json.dumps(hit["group"]): 1 + len(hit["others"]) for hit in reply["results"]}
    assert sizes.pop("1", 0) + sizes.pop("1.0", 0) == 3
    assert sizes == {"true": 1, '"1"': 1}
    counts = {json.dumps(each["value"]): each["count"] for each in reply["facets"]["v"]}
    assert counts.pop("1", 0) + counts.pop("1.0", 0) == 3
    assert counts == {"true": 1, '"1"': 1}


def test_facets_count_the_images_of_the_filter_and_follow_changes(servers: list[Server]) -> None:
    first, second = servers
    fill(first)
    kept = {f"i{n:02}": metadata(n) for n in range(N)}

    def expected(field: str, chosen: Any) -> Counter:
        counts: Counter = Counter()
        for each in kept.values():
            if chosen(each or {}):
                value = (each or {}).get(field)
                counts.update({*value} if isinstance(value, list) else {value} - {None})
        return counts

    def check() -> None:
        for server in servers:
            for filter, chosen in (
                ({}, lambda m: True),
                ({"brand": "acme"}, lambda m: m.get("brand") == "acme"),
                ({"tags": {"any": ["t1"]}}, lambda m: "t1" in m.get("tags", [])),
            ):
                reply = server.http.post(
                    "/search",
                    json={"id": "i01", "k": 1, "filter": filter, "facets": ["brand", "tags"]},
                ).json()
                for field in ("brand", "tags"):
                    counts = [each["count"] for each in reply["facets"][field]]
                    assert counts == sorted(counts, reverse=True)
                    found = {each["value"]: each["count"] for each in reply["facets"][field]}
                    assert found == expected(field, chosen), (filter, field)

    check()
    first.http.patch("/images/i03", json={"metadata": {"brand": "acme", "tags": ["new", "t1"]}})
    kept["i03"] = {"brand": "acme", "tags": ["new", "t1"]}
    check()
    second.index(png(900), ids='["i04"]', metadata='[{"brand": "acme"}]')
    kept["i04"] = {"brand": "acme"}
    first.http.delete("/images/i09")
    del kept["i09"]
    check()
    # More changes than counts apply themselves.
    many = columns.UPDATE_AFTER + 50
    for n in range(many // 50 + 1):
        for turn in range(50):
            id = f"i{10 + turn % 4}"
            kept[id] = {"brand": f"b{n % 3}", "tags": [str(turn)]}
            first.http.patch(f"/images/{id}", json={"metadata": kept[id]})
    check()
    first.index(png(901), ids='["last"]', metadata='[{"brand": "bird"}]')
    kept["last"] = {"brand": "bird"}
    check()


def test_totals_count_the_scores_that_are_wanted(servers: list[Server]) -> None:
    first, second = servers
    fill(first)
    ranking = first.search(png(3), k=1000).json()["results"]
    for place in (0, 5, N - 1):
        least = ranking[place]["score"]
        page = second.search(png(3), k=2, pages=True, min_score=least).json()
        assert page["total"] == sum(hit["score"] >= least for hit in ranking)
        chosen = json.dumps({"brand": {"any": ["acme", "bird"]}})
        page = second.search(png(3), k=1, pages=True, min_score=least, filter=chosen).json()
        wanted = [
            hit for hit in ranking if (hit["metadata"] or {}).get("brand") in ("acme", "bird")
        ]
        assert page["total"] == sum(hit["score"] >= least for hit in wanted)
        if page["next_cursor"]:
            following = first.http.post("/search", json={"cursor": page["next_cursor"]}).json()
            assert following["total"] == page["total"]
    first.http.delete(f"/images/{ranking[0]['id']}")
    first.index(png(3), ids='["same"]')
    page = second.search(png(3), k=1, pages=True, min_score=ranking[5]["score"]).json()
    fresh = second.search(png(3), k=1000).json()["results"]
    assert page["total"] == sum(hit["score"] >= ranking[5]["score"] for hit in fresh)


def test_groups_are_exact_for_images_that_are_not_written_meanwhile(servers: list[Server]) -> None:
    fill(servers[0])

    def write(number: int, turn: int) -> httpx.Response:
        server, id = servers[number % 2], f"w{(number + 4 * turn) % 12:02}"
        if turn % 3 == 0:
            return server.http.delete(f"/images/{id}")
        about = '[{"by": "writer"}]'
        return server.index(png(1000 * number + turn), ids=json.dumps([id]), metadata=about)

    with writing(write):
        for seed in range(6):
            found = servers[1].search(png(seed), k=1000).json()["results"]
            quiet = [hit for hit in found if hit["id"].startswith("i")]
            reply = servers[0].search(png(seed), k=10, group_by="product.no", group_size=3).json()
            assert groups_of(reply) == grouped(quiet, product, 10, 3)


@pytest.mark.parametrize(
    ("fields", "code", "place"),
    [
        ({"group_size": 2}, "invalid-field", "group_size"),
        ({"group_by": "a..b"}, "invalid-filter", "group_by"),
        ({"group_by": "a", "group_size": 101}, "invalid-field", "group_size"),
        ({"group_by": "a", "group_size": 100, "k": 101}, "too-many-results", "group_size"),
        ({"group_by": "a", "pages": True}, "invalid-field", "group_by"),
        ({"group_by": "x" * 201}, "invalid-filter", "group_by"),
        ({"facets": ["a", ""]}, "invalid-filter", "facets"),
        ({"facets": ["\0"]}, "invalid-filter", "facets"),
        ({"facets": "ab"}, "invalid-field", "facets"),
        ({"facets": [f"f{n}" for n in range(9)]}, "invalid-field", "facets"),
        ({"explain": True}, "unknown-classes", "explain"),
        ({"explain": 7}, "invalid-field", "explain"),
    ],
)
def test_what_cannot_be_grouped_or_counted_is_refused(
    server: Server, fields: dict, code: str, place: str
) -> None:
    server.index(png(1), ids='["one"]')
    reply = server.http.post("/search", json={"id": "one", **fields})
    assert (reply.status_code, reply.json()["code"]) == (422, code)
    assert reply.json()["detail"].startswith(place)


def test_a_batch_has_no_groups(server: Server) -> None:
    for fields in ({"group_by": "a"}, {"facets": ["a", "b"]}, {"explain": True}):
        reply = server.http.post("/search/batch", files={"images": png(0)}, data=fields)
        assert (reply.status_code, reply.json()["code"]) == (422, "invalid-field")


def test_a_field_with_too_many_values_is_refused(servers: list[Server]) -> None:
    server = servers[0]
    for first in range(0, 2 * columns.MOST_VALUES // 100, 20):
        rows = [
            {"n": [100 * n + i for i in range(100)]} for n in range(first // 2, first // 2 + 10)
        ]
        server.index(*(png(first * 10 + n) for n in range(10)), metadata=json.dumps(rows))
    assert server.search(png(0), k=1, facets="n").status_code == 200
    server.index(png(77), metadata=json.dumps([{"n": -1}]), ids='["more"]')
    reply = servers[1].search(png(0), k=1, facets="n")
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid-filter")
    assert "different values" in reply.json()["detail"]


def test_facets_of_a_key_know_nothing_of_other_images(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, database_url=database_url, api_keys="top") as server:
        server.http.headers["authorization"] = "Bearer top"
        many = [{"n": [*range(100 * n, 100 * n + 100)]} for n in range(101)]
        ids = json.dumps([f"a-{n}" for n in range(len(many))])
        server.index(*(png(n) for n in range(len(many))), ids=ids, metadata=json.dumps(many))
        about = '[{"m": 9007199254740993}, {"m": 9007199254740992, "n": 1}]'
        server.index(png(500), png(501), ids='["a-x", "b-x"]', metadata=about)
        key = {"name": "b", "scopes": ["search"], "prefix": "b-"}
        secret = server.http.post("/keys", json=key).json()["key"]
        body = {"id": "b-x", "facets": ["n", "m"]}
        assert server.http.post("/search", json=body).status_code == 422
        page = server.http.post(
            "/search", json={"id": "b-x", "k": 1, "pages": True, "min_score": -0.99}
        ).json()
        assert page["total"] > 100
        server.http.headers["authorization"] = f"Bearer {secret}"
        facets = server.http.post("/search", json=body).json()["facets"]
        assert facets == {
            "n": [{"value": 1, "count": 1}], "m": [{"value": 9007199254740992.0, "count": 1}]
        }  # fmt: skip
        following = server.http.post("/search", json={"cursor": page["next_cursor"]}).json()
        assert following["total"] <= 1


def test_a_search_by_id_with_facets_has_the_image_itself(servers: list[Server]) -> None:
    server = servers[0]
    server.index(*[png(7)] * 5, ids=json.dumps([f"same-{n}" for n in range(5)]))
    for more in ({}, {"facets": ["n"]}):
        body = {"id": "same-4", "k": 2, **more}
        found = [hit["id"] for hit in server.http.post("/search", json=body).json()["results"]]
        assert found == ["same-0", "same-4"]
