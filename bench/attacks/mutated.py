"""Posts damaged images to a service, and checks that it refuses or stores them and nothing else.

    python -m bench.attacks.mutated                 100,000 images of every format, about a minute

The images are those of tests/image_cases.py, damaged at random, in requests of BATCH to POST /index
from a few clients. Each item of a reply has a status of its own. Results are written to
bench/results/mutated.json.
"""

import argparse
import json
import random
import re
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from bench.machine import describe
from bench.output import RESULTS, save
from gpq.pixels import formats
from harness.models import SHIPPED
from harness.server import Server
from tests.fuzz.mutation import mutated
from tests.image_cases import CASES

BATCH, CLIENTS = 50, 4
DECODE = re.compile(r"decode;dur=([\d.]+)")
WARM = 0.1  # share of the images before the memory is first looked at
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000, help="images to post")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    formats.formats()  # lets Pillow write HEIF
    seeds = [make() for make in CASES.values()]
    statuses: Counter[str] = Counter()
    items: Counter[str] = Counter()
    slowest = [0.0]
    batches = range(options.images // BATCH)
    memory: list[int] = []
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder), model=SHIPPED) as server:

        def post(n: int) -> None:
            numbers = random.Random(f"{options.seed}-{n}")
            reply = server.index(*(mutated(numbers, seeds) for _ in range(BATCH)))
            statuses[str(reply.status_code)] += 1
            slowest.append(float(DECODE.search(reply.headers["Server-Timing"])[1]) / 1000)  # type: ignore[index]
            for item in json.loads(reply.text)["items"]:
                items[item["error"]["code"] if "error" in item else item["status"]] += 1
            if n in (int(len(batches) * WARM), len(batches) - 1):
                memory.append(server.rss())

        with ThreadPoolExecutor(CLIENTS) as pool:
            list(tqdm(pool.map(post, batches), total=len(batches)))
        ended = re.search(r"(?m)^gpq_decoders_ended_total (\S+)", server.http.get("/metrics").text)
        ready = server.http.get("/readyz").status_code
    save(
        {
            "machine": describe(),
            "images": len(batches) * BATCH,
            "statuses": dict(statuses),
            "items": dict(items.most_common()),
            "slowest_request_decode_s": round(max(slowest), 2),
            "decoders_ended": float(ended[1]) if ended else None,
            "rss_mb": [round(each / MIB) for each in memory],
            "ready": ready,
        },
        RESULTS / "mutated.json",
    )


if __name__ == "__main__":
    main()
