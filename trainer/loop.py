"""The training loop: steps, progress, checkpoints, an orderly stop."""

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor
from tqdm import tqdm

from gpq.preprocess import Preprocess
from trainer import checkpoint
from trainer.config import Config
from trainer.data import TrainingSet
from trainer.device import autocast
from trainer.errors import TrainerError
from trainer.model import GPQ
from trainer.recipes import RECIPES

CHECKPOINT_SECONDS = 120
LOG_STEPS = 25
GRADIENT_NORM = 5.0


class Stopped(Exception):
    """Ctrl-C or SIGTERM arrived; the checkpoint is written."""


@dataclass(frozen=True)
class Result:
    model: GPQ
    seconds: float


class _StopRequest:
    asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def _orderly_stop() -> Iterator[_StopRequest]:
    """The first SIGINT or SIGTERM lets the step finish; the second stops at once."""
    request = _StopRequest()
    old = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def run(
    model: GPQ,
    data: TrainingSet,
    rules: Preprocess,
    config: Config,
    out: Path,
    device: torch.device,
    *,
    resume: bool,
) -> Result:
    """Train to ``config.steps``; writes checkpoints and log.jsonl below ``out``.

    Raises Stopped after a signal, TrainerError where the loss stops being a number.
    """
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = RECIPES[config.recipe](model, data, rules, config, autocast(device))
    optimiser, schedule = recipe.optimiser()
    first, seconds = 0, 0.0
    if resume:
        saved = checkpoint.read(out, config)
        checkpoint.restore(saved, recipe, optimiser, schedule)
        first, seconds = saved["step"], saved["seconds"]

    def save(step: int) -> None:
        checkpoint.save(out, config, recipe, optimiser, schedule, step, seconds)

    model.train()
    last_saved = time.monotonic()
    batch = config.batch_labelled + config.batch_unlabelled
    progress = tqdm(
        range(first, config.steps), initial=first, total=config.steps, desc="training", unit="step"
    )
    with _orderly_stop() as stop, (out / "log.jsonl").open("a" if resume else "w") as log:
        for step in progress:
            started = time.monotonic()
            total, parts = recipe.losses()
            optimiser.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
            optimiser.step()
            schedule.step()
            recipe.after_step()
            done = step + 1
            last = done == config.steps
            if done % LOG_STEPS == 0 or last:
                losses = {name: round(value.item(), 4) for name, value in parts.items()}
                _check_finite(total, done)
            seconds += time.monotonic() - started
            if done % LOG_STEPS == 0 or last:
                rate = round(batch / (time.monotonic() - started))
                progress.set_postfix({**losses, "img/s": rate})
                log.write(json.dumps({"step": done, "seconds": round(seconds, 1), **losses}) + "\n")
                log.flush()
            if time.monotonic() - last_saved > CHECKPOINT_SECONDS or last or stop.asked:
                _check_finite(total, done)
                save(done)
                last_saved = time.monotonic()
            if stop.asked and not last:
                raise Stopped(f"stopped at step {done} of {config.steps}; go on with --resume")
    return Result(recipe.trained, seconds)


def _check_finite(loss: Tensor, step: int) -> None:
    """Raises TrainerError, so that no checkpoint is overwritten by weights that are lost."""
    if not math.isfinite(loss.item()):
        raise TrainerError(f"the loss is {loss.item()} at step {step}; the last checkpoint is good")
