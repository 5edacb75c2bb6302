"""Originals in another place than a folder."""

from pathlib import Path

from service.originals.names import PART_BYTES
from tests.images import encoded, noise, png
from tests.server import Server


def test_originals_of_any_driver_are_kept_and_searched_by(
    random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, image_store="memory://originals") as server:
        assert server.index(png(1), ids='["a"]').status_code == 200
        assert server.http.get("/images/a/content").content == png(1)
        large = encoded(noise(1, (900, 700)))
        assert len(large) > PART_BYTES and server.index(large, ids='["large"]').status_code == 200
        whole = server.http.get("/images/large/content")
        assert whole.content == large and whole.headers["Content-Length"] == str(len(large))
        assert server.http.delete("/images/large").status_code == 204
        assert server.http.get("/images/a/thumbnail").status_code == 200
        found = server.http.post("/search", json={"id": "a"}).json()
        assert (found["query"], [hit["id"] for hit in found["results"]]) == ("original", ["a"])
