"""Compares three ways to run a network on the CPU: our convolutions, torch traced, torch plain.

    python -m bench.network      the shipped network and the paper's VGG, about two minutes

Each way computes the features of decoded images, in batches of 1, 8 and 64, on one thread and on
all. They are measured alternately. Results are written to bench/results/network.json.
"""

import argparse
import json
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bench import rates
from bench.machine import describe
from bench.output import RESULTS
from gpq import winograd
from gpq.model import artifact
from gpq.model.network import build
from gpq.system.processors import processors
from gpq.winograd import library
from harness.models import SHIPPED

SIDE, D = 32, 144
BATCHES = (1, 8, 64)
SECONDS = 0.3  # of one measurement

Network = Callable[[Tensor], Tensor]


def ways(network: nn.Module) -> dict[str, Network]:
    """Returns the network in every way, by name.

    "avx512" and "avx2" are our convolutions, if the processor has these instructions. "traced" is
    traced and frozen by torch. "by layer" is the network itself.
    """
    plan, images = winograd.plan(network, SIDE), torch.zeros(2, 3, SIDE, SIDE)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    traced = torch.jit.trace(network, channels_last, check_trace=False)  # type: ignore[no-untyped-call]
    ours = {
        name: winograd.WinogradNetwork(plan, name)
        for name in ("avx512", "avx2")
        if library.instructions(name)
    }
    return {**ours, "traced": torch.jit.freeze(traced), "by layer": network}


def images_a_second(network: Network, count: int) -> float:
    """Returns the rate of a network that gets ``count`` images at a time."""
    images = torch.randn(count, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    return rates.images_a_second(lambda: network(images), count, SECONDS)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each")
    options = parser.parse_args()
    networks = {"shipped": artifact.load(SHIPPED).network, "VGG": build("vgg", D)}
    results: list[dict[str, object]] = []
    for threads in sorted({1, processors()}):
        torch.set_num_threads(threads)
        for name, network in networks.items():
            available = ways(network.eval())
            for count in tqdm(BATCHES, desc=f"{name}, {threads} threads"):
                found: dict[str, list[float]] = {way: [] for way in available}
                for _ in range(options.rounds):
                    for way, run in available.items():
                        found[way].append(images_a_second(run, count))
                median = {way: statistics.median(values) for way, values in found.items()}
                results.append(
                    {"network": name, "threads": threads, "batch": count}
                    | {"pictures_a_second": {way: round(rate) for way, rate in median.items()}}
                    | {
                        "times_traced": {
                            w: round(r / median["traced"], 2) for w, r in median.items()
                        }
                    }
                )
    print(json.dumps(results, indent=1))
    text = json.dumps({"machine": describe(), "results": results}, indent=1)
    (RESULTS / "network.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
