"""Models whose codes are not compared by cosines, served with each kind of database."""

import json
from pathlib import Path

import numpy as np
import pytest

from gpq.engine import engines
from gpq.model.codebook import SCORES, Score
from harness.images import png
from harness.models import make_artifact
from harness.server import Server

IMAGES = 30


@pytest.mark.parametrize("score", SCORES)
def test_a_search_scores_codes_as_their_model_says(
    score: Score, database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    make_artifact(folder, score=score)
    model = engines.load(folder)
    codes = model.codebook.encode(
        model.features(np.stack([model.read(png(seed)) for seed in range(IMAGES)]))
    )
    query = model.read(png(1))[None]

    def expected(table: np.ndarray) -> list[tuple[str, float]]:
        scores = np.zeros(IMAGES, dtype=np.float32)
        for m in range(model.codebook.M):
            scores += table[m, codes[:, m]]
        order = np.argsort(-scores, kind="stable")
        return [(f"p{n}", pytest.approx(float(scores[n]), abs=1e-4)) for n in order]

    settings = {"model": folder, "database_url": database_url, "image_store": "none"}
    with Server(tmp_path, **settings) as server:
        assert server.http.get("/model").json()["score"] == score
        for seed in range(IMAGES):
            assert server.index(png(seed), ids=json.dumps([f"p{seed}"])).status_code == 200
        by_image = hits(server.search(png(1), k=IMAGES).json())
        by_code = server.http.post("/search", json={"id": "p7", "k": IMAGES}).json()
        assert by_code["query"] == "code"
    with Server(tmp_path, **settings) as server:
        assert hits(server.search(png(1), k=IMAGES).json()) == by_image
    assert by_image == expected(model.lut(query)[0])
    decoded = model.codebook.decode(codes[7:8])
    assert hits(by_code) == expected(model.codebook.lut(decoded)[0])


def hits(reply: dict[str, list[dict[str, float]]]) -> list[tuple[float, float]]:
    return [(hit["id"], hit["score"]) for hit in reply["results"]]
