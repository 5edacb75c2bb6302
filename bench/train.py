"""Compares the speed of the full training step to the speed of the network alone.

.venv/bin/python -m bench.train                 both recipes and sizes, the default batches
python -m bench.train --device cuda --steps 50
python -m bench.train --recipes modern --sizes 32 --batch 16 --rounds 2
python -m bench.train --device cuda --launched    launches each operation, without a CUDA graph

The network alone runs forward and backward on the same number of images, with the sum of its
features as the loss. It has no data loading, augmentation, teacher, other losses, optimiser or
weight average. The images are random. The figures are medians; the two are measured alternately.
Results are written to bench/results/train.json.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.machine import describe
from bench.output import RESULTS, save
from gpq.engine import torch_pixels
from gpq.pixels.preprocess import Preprocess
from gpq.system import device, memory
from trainer.components.model import GPQ
from trainer.config import BATCHES, LEARNING_RATES, Config
from trainer.data.image_sets import TrainingSet
from trainer.device import autocast
from trainer.device import describe as describe_device
from trainer.recipes import RECIPES
from trainer.training.step import TrainingStep

WRITTEN = RESULTS / "train.json"
NETWORKS = {32: "resnet32", 64: "resnet64"}
CLASSES, IMAGES = 10, 4096


def measure(
    recipe_name: str, size: int, on: torch.device, options: argparse.Namespace
) -> dict[str, object]:
    """Measures one recipe with the network for images of ``size`` pixels, on a device."""
    labelled, unlabelled = (options.batch,) * 2 if options.batch else BATCHES[recipe_name]
    steps, backend = options.steps, options.compile
    config = Config(
        recipe=recipe_name, variant="gpq", network=NETWORKS[size], width=options.width,
        size=size, bits=48,
        details=4 if recipe_name == "modern" else 0, logits="averaged", steps=1000,
        batch_labelled=labelled, batch_unlabelled=unlabelled,
        learning_rate=LEARNING_RATES[recipe_name], lambda1=1.0, lambda2=0.1,
        held_out=0.0, seed=0, dataset="folder", init="", teacher="", compile=backend,
    )  # fmt: skip
    pixels = torch.randint(0, 256, (IMAGES, 3, size, size), dtype=torch.uint8)
    labels = torch.eye(CLASSES, dtype=torch.uint8)[torch.arange(IMAGES) % CLASSES]
    names = tuple(map(str, range(CLASSES)))
    data = TrainingSet(pixels, labels, pixels, names).to(on)
    rules = Preprocess(size)
    model = GPQ(config, CLASSES).to(on, memory_format=torch.channels_last).train()
    recipe = RECIPES[recipe_name](model, data, rules, config, autocast(on, config.network))
    for network in recipe.networks() if backend else []:
        network.compile(backend=backend)
    optimiser, schedule = recipe.optimiser()
    batch = labelled + unlabelled
    images = torch_pixels.normalise(rules, data.labelled[:batch])
    images = images.contiguous(memory_format=torch.channels_last)

    learn = TrainingStep(recipe, optimiser, graph=not options.launched)

    def full() -> None:
        learn()
        schedule.step()

    def bare() -> None:
        model.zero_grad(set_to_none=True)
        with recipe.autocast:
            model.features(images).sum().backward()

    rates: dict[str, list[float]] = {"full": [], "bare": []}
    for _ in range(options.rounds):
        for name, work in (("full", full), ("bare", bare)):
            rates[name].append(batch * steps / seconds(work, steps, on))
    medians = {name: round(statistics.median(found[1:])) for name, found in rates.items()}
    return {
        "recipe": recipe_name,
        "compile": backend,
        "graph": learn.graphed,
        "width": options.width,
        "size": size,
        "batch": batch,
        "full_images_s": medians["full"],
        "bare_images_s": medians["bare"],
        "ratio": round(medians["full"] / medians["bare"], 3),
        "seconds_a_step": round(batch / medians["full"], 5),
    }


def seconds(work: Callable[[], None], steps: int, on: torch.device) -> float:
    """Returns the seconds of ``steps`` calls on a device."""
    started = time.perf_counter()
    for _ in range(steps):
        work()
    if on.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3, help="steps per measurement (%(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="measurements; the first is not counted"
    )
    parser.add_argument("--recipes", nargs="+", default=["modern", "paper"])
    parser.add_argument("--sizes", type=int, nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument(
        "--width", type=int, default=32, help="channels of the network (%(default)s)"
    )
    parser.add_argument("--batch", type=int, help="labelled and unlabelled images per step")
    parser.add_argument("--launched", action="store_true", help="do not use a CUDA graph")
    parser.add_argument("--device", choices=device.NAMES, default="auto")
    parser.add_argument("--compile", default="", help="backend of torch.compile (not compiled)")
    parser.add_argument("--out", type=Path, default=WRITTEN, help="JSON file (%(default)s)")
    options = parser.parse_args()
    on = torch.device(device.pick(options.device))
    if on.type == "cpu":
        memory.keep_freed()
    found = [
        measure(recipe, size, on, options) for recipe in options.recipes for size in options.sizes
    ]
    results = {
        "runs": found,
        "device": describe_device(on),
        "machine": describe(),
        "versions": {"torch": str(torch.__version__)},
    }
    save(results, options.out)


if __name__ == "__main__":
    main()
