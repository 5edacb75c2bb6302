"""Compares POST /search with a model of photographs to decoding and encoding alone.

    python -m bench.encoder                          models/photos, about 5 minutes
    python -m bench.encoder --seconds 5 --rounds 1 --model models/mine

Alone means that a pool decodes as many images at a time as the service does, and that the model
computes their look-up tables in batches as large as the service's. The service, with 1,000 stored
images, gets a form with the same 640×480 JPEG on 16 connections. The two are measured alternately.
Set GPQ_PRECISION=bfloat16 to measure both in bfloat16. Results are written to
bench/results/encoder.json.
"""

import argparse
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bench import load, photographs, rates
from bench.database import filled_service
from bench.machine import describe
from bench.output import RESULTS, save
from gpq.engine import engines
from gpq.engine.engines import Options
from harness.models import DEFAULT
from service.models.encoder import BATCHES
from service.settings import Settings

ROWS, BATCH = 1000, BATCHES["cpu"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="(models/photos)")
    parser.add_argument("--seconds", type=float, default=30, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each")
    options = parser.parse_args()
    load.require()
    found: dict[str, list[float]] = {"alone": [], "service": []}
    settings = Settings()
    model = engines.load(options.model, Options(precision=settings.precision))
    data = photographs.by_size()["640×480"]
    with (
        tempfile.TemporaryDirectory() as name,
        ThreadPoolExecutor(settings.decode_threads) as pool,
    ):
        folder = Path(name)
        image = folder / "image.jpg"
        image.write_bytes(data)

        def decode_and_encode() -> None:
            model.lut(np.stack(list(pool.map(model.read, [data] * BATCH))))

        with filled_service(folder, ROWS, options.model, precision=settings.precision) as server:
            for _ in tqdm(range(options.rounds)):
                found["alone"].append(
                    rates.images_a_second(decode_and_encode, BATCH, options.seconds)
                )
                url = f"{server.url}/search"
                found["service"].append(load.capacity("the service", url, image, options.seconds))
    median = {what: round(statistics.median(values), 2) for what, values in found.items()}
    results = {
        "machine": describe(),
        "model": model.id,
        "precision": model.network.precision,
        "pictures_a_second": median,
        "share_of_alone": round(median["service"] / median["alone"], 3),
        "rounds": {what: [round(value, 2) for value in all_of] for what, all_of in found.items()},
    }
    save(results, RESULTS / "encoder.json")


if __name__ == "__main__":
    main()
