"""POST /search with a large network beside that network alone.

    python -m bench.encoder                          ResNet-50 at 224 pixels, about 5 minutes
    python -m bench.encoder --seconds 5 --rounds 1

Alone: batches of as many pictures as the service encodes at a time, already decoded, through the
same model in this process. The service gets a form with a 640×480 JPEG, from 16 connections; 1,000
pictures are stored. Random weights, which cost as much. Rounds take turns. Results go to
bench/results/encoder.json.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from bench import alone, load
from bench.machine import describe
from bench.service import CONNECTIONS, pictures
from bench.start import fill
from gpq.engine.inference import in_one_call
from gpq.model import artifact, network
from gpq.model.codebook import Codebook, intra_normalise
from gpq.pixels.preprocess import JPEG_SCALED, Preprocess
from harness.server import Server
from service.models.encoder import BATCHES

RESULTS = Path(__file__).parent / "results" / "encoder.json"
NAME, SIZE, M, D = "resnet50", 224, 12, 12
ROWS, BATCH = 1000, BATCHES["cpu"]


def made(folder: Path) -> str:
    """An artifact of random weights; returns its id."""
    torch.manual_seed(0)
    Z = intra_normalise(torch.randn(16, M * D), M).transpose(0, 1).contiguous()
    examples = np.random.default_rng(0).integers(0, 256, (64, 3, SIZE, SIZE), dtype=np.uint8)
    about = {"classes": ["a", "b"], "measured": None}
    net = network.build(NAME, M * D)
    rules = Preprocess(SIZE, jpeg=JPEG_SCALED)
    return artifact.save(
        folder, net, Codebook(Z), {"name": NAME, "width": None}, rules, about, examples
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    load.require()
    rates: dict[str, list[float]] = {"alone": [], "service": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture, url = folder / "picture.jpg", f"sqlite:///{folder}/gpq.db"
        picture.write_bytes(pictures()["640×480"])
        fill(url, ROWS, made(folder / "model"))
        model = in_one_call(artifact.load(folder / "model"))
        settings = {"model": folder / "model", "database_url": url, "image_store": "none"}
        with Server(folder, **settings) as server:
            for _ in tqdm(range(options.rounds)):
                rates["alone"].append(alone.pictures_a_second(model, BATCH, options.seconds))
                measured = load.run(f"{server.url}/search", picture, options.seconds, CONNECTIONS)
                if measured.statuses.keys() != {"200"} or measured.errors:
                    raise SystemExit(f"the service fails: {measured}")
                rates["service"].append(measured.replies_a_second)
    median = {what: round(statistics.median(values), 2) for what, values in rates.items()}
    results = {
        "machine": describe(),
        "network": f"{NAME} at {SIZE} pixels",
        "pictures_a_second": median,
        "share_of_alone": round(median["service"] / median["alone"], 3),
        "rounds": {what: [round(value, 2) for value in all_of] for what, all_of in rates.items()},
    }
    print(json.dumps(results, indent=1))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
