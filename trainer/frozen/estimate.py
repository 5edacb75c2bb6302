"""Says at the start of a run how long it will take, by measuring a little of everything."""

import sys
import time
from dataclasses import dataclass

import torch

from gpq.pixels.preprocess import Preprocess
from trainer import distributed
from trainer.components.model import GPQ
from trainer.config import Config
from trainer.data.image_sets import ListedSet, Standard, TrainingSet, spread
from trainer.device import autocast
from trainer.frozen.features import BATCH, ViewFeatures
from trainer.frozen.part import Frozen
from trainer.recipes import RECIPES
from trainer.training.step import WARM_UP, TrainingStep

TIMED_STEPS = 3


@dataclass(frozen=True)
class Estimate:
    """``views``: how many of all views must be computed. ``rate``: of them in a second.

    ``reading``: seconds for all images. ``step``: seconds of a step.
    """

    images: int
    views: int
    rate: float
    reading: float
    step: float
    steps: int

    @property
    def seconds(self) -> float:
        return self.reading + self.views / self.rate + self.step * self.steps

    def __str__(self) -> str:
        return (
            f"this run takes about {in_words(self.seconds)}: {self.images:,} images to read, "
            f"{self.views:,} views to compute at {self.rate:,.0f} a second, and {self.steps:,} "
            f"steps of {1000 * self.step:,.0f} ms"
        )


def estimate(
    listed: ListedSet,
    compute: ViewFeatures,
    frozen: Frozen,
    config: Config,
    rules: Preprocess,
    device: torch.device,
) -> Estimate | None:
    """Measures the frozen part and a few steps; returns None if no image can be read.

    Which share of the views is cached is seen from BATCH images of either kind, evenly spaced.
    """
    images, views, reading, dimension = 0, 0.0, 0.0, 0
    rates: list[float] = []
    for kind in (listed.labelled, listed.unlabelled):
        if not kind:
            continue
        started = time.perf_counter()
        sample = [chunk.pixels for chunk in kind.at(spread(len(kind), BATCH)).chunks("a few")]
        pixels = torch.cat(sample).numpy()
        images += len(kind)
        if not len(pixels):
            continue
        reading += (time.perf_counter() - started) / len(pixels) * len(kind)
        views += compute.missing(pixels, config.views) * config.views * len(kind)
        before, started = compute.computed, time.perf_counter()
        dimension = compute.of_pixels(pixels, config.views).shape[2]
        if compute.computed > before:
            rates.append((compute.computed - before) / (time.perf_counter() - started))
    if not dimension:
        return None
    step = seconds_per_step(frozen, len(listed.classes), dimension, config, rules, device)
    rate = sum(rates) / len(rates) if rates else float("inf")
    return Estimate(images, round(views), rate, reading, step, config.steps)


def seconds_per_step(
    frozen: Frozen,
    classes: int,
    dimension: int,
    config: Config,
    rules: Preprocess,
    device: torch.device,
) -> float:
    """Measures steps on random features (N,V,E) of as many images as a step has.

    Random numbers that are drawn afterwards stay the same.
    """
    count = max(config.batch_labelled, config.batch_unlabelled, classes)
    labels = torch.eye(classes, dtype=torch.uint8)[torch.arange(count) % classes]
    with torch.random.fork_rng(enabled=True):
        values = torch.randn(count, config.views, dimension).half()
        standard = Standard(torch.zeros(dimension), torch.ones(dimension))
        data = TrainingSet(
            values,
            labels,
            values.clone(),
            tuple(map(str, range(classes))),
            standard=standard if frozen.pooled else None,
        ).to(device)
        rest = frozen.rest(classes if config.distilled else 0)
        model = GPQ(config, classes, rest).train()
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        recipe = RECIPES[config.recipe](
            model, data, rules, config, autocast(device, config.network)
        )
        learn = TrainingStep(recipe, recipe.optimiser()[0])
        for _ in range(WARM_UP + 2 if learn.graphed else 1):
            learn()
        started = _now(device)
        for _ in range(TIMED_STEPS):
            learn()
        return (_now(device) - started) / TIMED_STEPS


def show(found: Estimate | None) -> None:
    """Prints an estimate, in the first process."""
    if found and distributed.is_first():
        print(found, file=sys.stderr)


def in_words(seconds: float) -> str:
    """Formats a time in minutes or hours."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
