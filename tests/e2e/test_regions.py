"""Tests of searches for a part of an image."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.images import encoded, noise, png
from harness.server import Server
from tests.e2e.test_hostile import assert_problem

REGION = {"x": 0.25, "y": 0.1, "width": 0.5, "height": 0.6}
BOX = (100, 30, 300, 210)  # of an image of 400 by 300 pixels


def scores(reply: Any) -> dict[str, float]:
    assert reply.status_code == 200, reply.text
    return {hit["id"]: hit["score"] for hit in reply.json()["results"]}


def photograph() -> Image.Image:
    return noise(1, (400, 300))


def test_a_part_of_an_image_is_searched_for(server: Server) -> None:
    server.index(*map(png, range(8)), ids=json.dumps([f"region-{n}" for n in range(8)]))
    image = photograph()
    expected = scores(server.search(encoded(image.crop(BOX)), k=1000))
    region = json.dumps(REGION)
    assert scores(server.search(encoded(image), k=1000, region=region)) == expected
    assert scores(server.search(encoded(image), k=1000)) != expected
    turned = encoded(image.transpose(Image.Transpose.ROTATE_90), exif=_orientation(6))
    assert scores(server.search(turned, k=1000, region=region)) == expected  # of the upright image
    files = [("images", ("x", encoded(image)))] * 2
    batch = server.http.post("/search/batch", files=files, data={"k": 1000, "region": region})
    for query in batch.json()["queries"]:
        found = {hit["id"]: hit["score"] for hit in query["results"]}
        assert found == pytest.approx(expected, abs=1e-5)
    pages = server.search(encoded(image), k=1000, region=region, pages=True)
    assert scores(pages) == expected
    server.index(encoded(image), ids='["region-whole"]')
    by_id = server.http.post("/search", json={"id": "region-whole", "k": 1000, "region": REGION})
    assert by_id.json()["query"] == "original"
    found = scores(by_id)
    assert {id: score for id, score in found.items() if id != "region-whole"} == expected
    whole = {"x": 0, "y": 0, "width": 1, "height": 1}
    assert scores(server.search(encoded(image), k=1000, region=json.dumps(whole))) == scores(
        server.search(encoded(image), k=1000)
    )


def _orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def test_a_small_part_of_a_large_jpeg_keeps_its_pixels(server: Server) -> None:
    """Whole JPEGs are decoded at a fraction of their size; a part must not be."""
    buffer = io.BytesIO()
    noise(2, (3200, 2400)).save(buffer, "JPEG", quality=95)
    small = {"x": 0.5, "y": 0.5, "width": 0.05, "height": 0.05}
    part = Image.open(io.BytesIO(buffer.getvalue())).crop((1600, 1200, 1760, 1320))
    server.index(png(0), ids='["region-0"]')
    found = scores(server.search(buffer.getvalue(), k=1000, region=json.dumps(small)))
    assert found == scores(server.search(encoded(part), k=1000))


@pytest.mark.parametrize(
    "region",
    [
        "5", "[]", "{}", "{", '{"x": 0, "y": 0, "width": 1}',
        '{"x": 0.5, "y": 0, "width": 0.6, "height": 1}',
        '{"x": -0.1, "y": 0, "width": 0.6, "height": 1}',
        '{"x": 0, "y": 0, "width": 0, "height": 1}',
        '{"x": 0, "y": 0, "width": 1e-9, "height": 1}',
        '{"x": NaN, "y": 0, "width": 1, "height": 1}',
        '{"x": 0, "y": 0, "width": 1, "height": 1, "more": 1}',
    ],
)  # fmt: skip
def test_a_part_that_does_not_exist_is_refused(server: Server, region: str) -> None:
    body = server.search(png(0), region=region)
    assert body.status_code == 422 and "region" in body.json()["detail"], body.text


def test_a_part_of_an_image_without_its_original_is_refused(
    random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, image_store="none") as server:
        server.index(png(0), ids='["a"]')
        reply = server.http.post("/search", json={"id": "a", "region": REGION})
        assert_problem(reply, 404, "no-original")
        assert server.http.post("/search", json={"id": "a"}).json()["query"] == "code"
