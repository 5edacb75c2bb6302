"""Compares POST /search with a large network to that network alone.

    python -m bench.encoder                          ResNet-50 at 224 pixels, about 5 minutes
    python -m bench.encoder --seconds 5 --rounds 1

The network alone processes decoded images in this process, in batches as large as the service's.
The service, with 1,000 stored images, gets a form with a 640×480 JPEG on 16 connections. The two
are measured alternately. The weights are random, which takes as long as trained ones. Results are
written to bench/results/encoder.json.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from tqdm import tqdm

from bench import load, photographs, rates
from bench.database import filled_service
from bench.machine import describe
from bench.output import RESULTS, save
from gpq.engine import engines
from gpq.pixels.preprocess import JPEG_SCALED
from harness.trained import make_trained_artifact
from service.models.encoder import BATCHES

NAME, SIZE = "resnet50", 224
ROWS, BATCH = 1000, BATCHES["cpu"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each")
    options = parser.parse_args()
    load.require()
    found: dict[str, list[float]] = {"alone": [], "service": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, model_folder = folder / "image.jpg", folder / "model"
        image.write_bytes(photographs.by_size()["640×480"])
        kind = {"name": NAME, "width": None, "size": SIZE, "jpeg": JPEG_SCALED}
        make_trained_artifact(model_folder, **kind, examples=64)
        model = engines.load(model_folder)
        with filled_service(folder, ROWS, model_folder) as server:
            for _ in tqdm(range(options.rounds)):
                found["alone"].append(rates.model_alone(model, BATCH, options.seconds))
                url = f"{server.url}/search"
                found["service"].append(load.capacity("the service", url, image, options.seconds))
    median = {what: round(statistics.median(values), 2) for what, values in found.items()}
    results = {
        "machine": describe(),
        "network": f"{NAME} at {SIZE} pixels",
        "pictures_a_second": median,
        "share_of_alone": round(median["service"] / median["alone"], 3),
        "rounds": {what: [round(value, 2) for value in all_of] for what, all_of in found.items()},
    }
    save(results, RESULTS / "encoder.json")


if __name__ == "__main__":
    main()
