"""Compares the engines that run a network on the CPU.

    python -m bench.network      the shipped network and EfficientNet-Lite0, about four minutes

Each engine computes the features of prepared images, with the threads of --threads. The engines are
measured alternately, and the figures are medians. "torch traced" is the network traced and frozen
by torch. EfficientNet-Lite0 takes images of 224 pixels and has ImageNet weights. Results are
written to bench/results/network.json.
"""

import argparse
import statistics
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from bench import rates
from bench.machine import describe
from bench.output import RESULTS, save
from gpq.engine import engines, torch_architectures, torch_pixels
from gpq.engine.engines import Options
from gpq.engine.torch_network import TorchNetwork
from gpq.pixels.preprocess import Preprocess
from harness.models import SHIPPED
from trainer.artifacts import encoder
from trainer.components import pretrained

LITE0_SIZE = 224
LITE0_RULES = Preprocess(LITE0_SIZE, pretrained.LITE_MEAN, pretrained.LITE_STD)
BATCHES = {"models/cifar10": (1, 8, 64), "EfficientNet-Lite0": (1, 8, 16)}
SECONDS = 0.5  # of one measurement
PEER = "torch"

Pixels = NDArray[np.uint8]
Way = Callable[[Pixels], object]


def lite0_body() -> nn.Module:
    """Returns EfficientNet-Lite0 with ImageNet weights, up to the mean of its last features."""
    name = "efficientnet-lite0"
    network = torch_architectures.build(name, 1)
    pretrained.load_pretrained(network, name)
    network.project = nn.Identity()
    return network


def in_torch(network: nn.Module, rules: Preprocess) -> dict[str, Way]:
    """Returns the network as it is, and traced and frozen by torch."""
    images = torch.zeros(2, 3, rules.size, rules.size).contiguous(memory_format=torch.channels_last)
    network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends tracing with a compiler
        traced = torch.jit.freeze(torch.jit.trace(network, images, check_trace=False))  # type: ignore[no-untyped-call]

    def way(run: nn.Module) -> Way:
        def compute(pixels: Pixels) -> object:
            seen = torch_pixels.normalise(rules, torch.from_numpy(pixels))
            return run(seen.contiguous(memory_format=torch.channels_last))

        return compute

    return {PEER: way(network), "torch traced": way(traced)}


def engine_options(threads: int) -> dict[str, Options]:
    """Returns the engines other than torch, by name."""
    return {
        "onnxruntime": Options("onnxruntime", threads=threads),
        "openvino float32": Options("openvino", "float32", threads=threads),
        "openvino bfloat16": Options("openvino", "bfloat16", threads=threads),
    }


def shipped(threads: int) -> tuple[int, dict[str, Way]]:
    """Returns the size of the shipped model's images, and its network in every way."""
    network = engines.load(SHIPPED, Options("torch", threads=threads)).network
    assert isinstance(network, TorchNetwork)
    rules = engines.load(SHIPPED).rules
    options = engine_options(threads).items()
    others = {name: engines.load(SHIPPED, chosen).network.features for name, chosen in options}
    return rules.size, {**in_torch(network.module, rules), **others}


def lite0(threads: int, folder: Path) -> tuple[int, dict[str, Way]]:
    """Returns the size of EfficientNet-Lite0's images, and the network in every way."""
    network = lite0_body().eval()
    file = folder / "lite0.onnx"
    images = torch.zeros(2, 3, LITE0_SIZE, LITE0_SIZE)
    batch = {0: torch.export.Dim("batch")}
    torch.onnx.export(network, (images,), file, dynamo=True, dynamic_shapes=(batch,), verbose=False)
    read = encoder.read(file, LITE0_RULES)
    others: dict[str, Way] = {}
    for name, options in engine_options(threads).items():
        place = folder / name
        place.mkdir()
        others[name] = encoder.load_alone(read, place, options).network.features
    return LITE0_SIZE, {**in_torch(network, LITE0_RULES), **others}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each")
    parser.add_argument("--threads", type=int, default=1, help="threads of each engine")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        networks = {
            "models/cifar10": shipped(options.threads),
            "EfficientNet-Lite0": lite0(options.threads, Path(folder)),
        }
        for name, (size, ways) in networks.items():
            for count in tqdm(BATCHES[name], desc=name):
                pixels = np.random.default_rng(0).integers(
                    0, 256, (count, 3, size, size), dtype=np.uint8
                )
                found: dict[str, list[float]] = {way: [] for way in ways}
                for _ in range(options.rounds):
                    for way, run in ways.items():
                        work = partial(run, pixels)
                        found[way].append(rates.images_a_second(work, count, SECONDS))
                median = {way: statistics.median(values) for way, values in found.items()}
                results.append(
                    {
                        "network": name,
                        "batch": count,
                        "images_a_second": {way: round(rate) for way, rate in median.items()},
                        "times_torch": {
                            way: round(rate / median[PEER], 2) for way, rate in median.items()
                        },
                    }
                )
    about = {"machine": describe(), "threads": options.threads}
    save({**about, "results": results}, RESULTS / "network.json")


if __name__ == "__main__":
    main()
