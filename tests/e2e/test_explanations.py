"""Tests of the classes that a model takes images for, and of what scores owe to them."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpq.engine import engines
from gpq.model.codebook import intra_normalise, unpack
from gpq.model.model import Model
from harness.images import png
from harness.models import SHIPPED
from harness.server import Server

N = 24


@pytest.fixture(scope="module")
def model() -> Model:
    return engines.load(SHIPPED)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("service"), model=SHIPPED) as server:
        metadata = json.dumps([{"n": n % 3} for n in range(N)])
        ids = json.dumps([f"i{n}" for n in range(N)])
        assert server.index(*map(png, range(N)), ids=ids, metadata=metadata).status_code == 200
        yield server


def expected_parts(query: np.ndarray, name: str, codes: list[bytes], model: Model) -> list[float]:
    """Projects the query, sub-space by sub-space, onto the class, and scores the codes with it."""
    book = model.codebook
    assert book.classes is not None and book.means is not None
    number = model.about["classes"].index(name)
    x = book.expanded(intra_normalise(query[None], book.M))[0]
    parts = []
    for code in codes:
        total = 0.0
        words = unpack(np.frombuffer(code, np.uint8)[None], book.M)[0]
        for m, word in enumerate(words):
            direction = book.classes[m, number] / np.linalg.norm(book.classes[m, number])
            total += float(x[m] @ direction) * float(direction @ book.means[m, word]) / book.M
        parts.append(total)
    return parts


def test_a_query_is_explained_by_classes_of_the_model(filled: Server, model: Model) -> None:
    plain = filled.search(png(3), k=N).json()
    reply = filled.search(png(3), k=N, explain=True)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    scores = [hit["score"] for hit in found["results"]]
    assert [hit["id"] for hit in found["results"]] == [hit["id"] for hit in plain["results"]]
    assert scores == pytest.approx([hit["score"] for hit in plain["results"]], abs=1e-6)
    assert plain["explanation"] is None
    assert "of_class" not in plain["results"][0]
    classes = found["explanation"]["classes"]
    likely = [each["probability"] for each in classes]
    assert likely == sorted(likely, reverse=True)
    assert 0 < sum(likely) <= 1.001
    assert {each["name"] for each in classes} <= set(model.about["classes"])
    due_to = found["explanation"]["due_to"]
    assert due_to == classes[0]["name"]
    query = model.features(model.read(png(3))[None])[0]
    ids = [int(hit["id"][1:]) for hit in found["results"]]
    codes = [bytes(model.encode(model.read(png(n))[None])[0]) for n in ids]
    parts = [hit["of_class"] for hit in found["results"]]
    assert parts == pytest.approx(expected_parts(query, due_to, codes, model), abs=1e-5)


def test_stored_images_groups_and_pages_are_explained(filled: Server) -> None:
    body = {"id": "i5", "k": 3, "explain": True}
    found = filled.http.post("/search", json=body).json()
    assert all("of_class" in hit for hit in found["results"])
    again = filled.http.post("/search", json={**body, "pages": True}).json()
    assert again["results"] == found["results"]
    grouped = filled.http.post("/search", json={**body, "group_by": "n", "group_size": 2}).json()
    assert all("of_class" in each for hit in grouped["results"] for each in (hit, *hit["others"]))
    region = {"x": 0.1, "y": 0, "width": 0.5, "height": 0.5}
    part = filled.http.post("/search", json={**body, "region": region})
    assert part.json()["explanation"]["due_to"]
    examples = {"positive": [{"id": "i5"}], "explain": True}
    reply = filled.http.post("/search", json=examples)
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid-field")


def test_an_image_is_described_with_suggested_tags(filled: Server, model: Model) -> None:
    tags = filled.http.get("/images/i3").json()["tags"]
    code = bytes(model.encode(model.read(png(3))[None])[0])
    book = model.codebook
    p = book.probabilities(intra_normalise(model.decode(code)[None], book.M))[0]
    expected = [model.about["classes"][n] for n in np.argsort(-p)[:5] if p[n] >= 0.01]
    assert [tag["name"] for tag in tags] == expected != []
    assert all(0.01 <= tag["probability"] <= 1 for tag in tags)


def test_a_model_without_classes_suggests_nothing(server: Server) -> None:
    server.index(png(1), ids='["untagged"]')
    assert server.http.get("/images/untagged").json()["tags"] == []


def test_without_its_original_an_image_is_explained_by_its_code(tmp_path: Path) -> None:
    with Server(tmp_path, model=SHIPPED, image_store="none") as server:
        server.index(png(0), png(1), ids='["a", "b"]')
        found = server.http.post("/search", json={"id": "a", "explain": True}).json()
        assert found["query"] == "code"
        assert found["explanation"]["due_to"]
        assert all(hit["of_class"] is not None for hit in found["results"])
