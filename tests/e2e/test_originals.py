"""Tests of originals in any image store, read as a whole and in parts."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from harness.images import encoded, noise, png
from harness.server import Server
from service.originals.remote import PART_BYTES

LARGE = encoded(noise(1, (900, 700)))
SIZE = len(LARGE)
assert SIZE > PART_BYTES


def test_any_fsspec_driver_can_keep_originals_for_content_and_searches(
    random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, image_store="memory://originals") as server:
        assert server.index(png(1), ids='["a"]').status_code == 200
        assert server.http.get("/images/a/content").content == png(1)
        assert server.index(LARGE, ids='["large"]').status_code == 200
        whole = server.http.get("/images/large/content")
        assert whole.content == LARGE and whole.headers["Content-Length"] == str(SIZE)
        assert server.http.delete("/images/large").status_code == 204
        assert server.http.get("/images/a/thumbnail").status_code == 200
        found = server.http.post("/search", json={"id": "a"}).json()
        assert (found["query"], [hit["id"] for hit in found["results"]]) == ("original", ["a"])


@pytest.fixture(scope="module", params=["folder", "memory://originals"])
def ranged(
    request: pytest.FixtureRequest, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service that holds the image LARGE with the id ``a``."""
    folder = tmp_path_factory.mktemp("ranged")
    with Server(folder, model=random_model, image_store=request.param) as server:
        server.index(LARGE, ids='["a"]').raise_for_status()
        yield server


def content(server: Server, wanted: str, **headers: str) -> httpx.Response:
    return server.http.get("/images/a/content", headers={"Range": wanted, **headers})


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=8-15", 8, 16),
        ("bytes=7-", 7, SIZE),
        ("Bytes=-5", SIZE - 5, SIZE),
        (f"bytes=-{2 * SIZE}", 0, SIZE),
        (f"bytes=10-{SIZE}", 10, SIZE),
        (f"bytes={PART_BYTES - 3}-{PART_BYTES + 3}", PART_BYTES - 3, PART_BYTES + 4),
        (f"bytes=1-{SIZE - 2}", 1, SIZE - 1),
    ],
)
def test_a_range_of_bytes_is_served(ranged: Server, wanted: str, start: int, stop: int) -> None:
    part = content(ranged, wanted)
    assert (part.status_code, part.content) == (206, LARGE[start:stop])
    assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert part.headers["Content-Length"] == str(stop - start)
    assert part.headers["Content-Type"] == "image/png"
    if_unchanged = content(ranged, wanted, **{"If-Range": part.headers["ETag"]})
    assert if_unchanged.status_code == 206


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,5-6", "bytes=9-3", "bytes=-", "bytes=x-y", "lines=1-2", "bytes", ""]
)
def test_other_ranges_are_ignored(ranged: Server, wanted: str) -> None:
    whole = content(ranged, wanted)
    assert (whole.status_code, whole.content) == (200, LARGE)
    assert whole.headers["Accept-Ranges"] == "bytes"


def test_a_range_of_another_version_is_ignored(ranged: Server) -> None:
    for other in ('"another"', 'W/"another"', "Sat, 01 Jan 2000 00:00:00 GMT"):
        whole = content(ranged, "bytes=0-4", **{"If-Range": other})
        assert (whole.status_code, whole.content) == (200, LARGE)


@pytest.mark.parametrize("wanted", [f"bytes={SIZE}-", f"bytes={SIZE + 9}-{SIZE + 10}", "bytes=-0"])
def test_a_range_outside_the_file_is_refused(ranged: Server, wanted: str) -> None:
    refused = content(ranged, wanted)
    assert refused.status_code == 416
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.headers["Content-Range"] == f"bytes */{SIZE}"
    assert refused.json()["code"] == "no-such-range" and str(SIZE) in refused.json()["detail"]
