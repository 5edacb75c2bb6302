"""The training loop: steps, progress, checks on held-out images, checkpoints, orderly stops."""

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from gpq.model.codebook import Codebook
from gpq.pixels.preprocess import Preprocess
from trainer import distributed
from trainer.components.model import GPQ
from trainer.config import Config
from trainer.data.image_sets import TrainingSet
from trainer.device import autocast
from trainer.errors import TrainerError, writing
from trainer.evaluation.holdout import Check, HeldOut
from trainer.recipes import RECIPES, Recipe
from trainer.training import checkpoint
from trainer.training.best import CHECKS, Best
from trainer.training.step import TrainingStep

CHECKPOINT_SECONDS = 120
LOG_STEPS = 25


class Stopped(Exception):
    """The run was stopped by SIGINT or SIGTERM; its checkpoint is written."""


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a run.

    ``model``: with the weights of the best check, or of the last step if there were no checks.
    ``steps``: steps done. ``batches``: labelled and unlabelled images per step at the end of the
    run, fewer than configured if memory ran out. ``held_out``: the best check, and the mAP before
    the first step.
    """

    model: GPQ
    seconds: float
    steps: int
    batches: tuple[int, int]
    held_out: dict[str, Any] | None


class _StopRequest:
    asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def _orderly_stop() -> Iterator[_StopRequest]:
    """Lets the step finish after the first SIGINT or SIGTERM; the second one stops at once."""
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
    held_out: HeldOut | None,
    rules: Preprocess,
    config: Config,
    out: Path,
    device: torch.device,
    saved: checkpoint.Saved | None,
) -> TrainingResult:
    """Trains for ``config.steps``, or until checks on the held-out images stop improving.

    Writes checkpoints and log.jsonl to ``out``. ``saved``: a checkpoint to resume from.

    Raises Stopped after a signal, and TrainerError if the loss is not finite or memory does not
    suffice.
    """
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = RECIPES[config.recipe](model, data, rules, config, autocast(device, config.network))
    if config.compile:
        for network in recipe.networks():
            network.compile(backend=config.compile)
    optimiser, schedule = recipe.optimiser()
    check = Check(data, held_out) if held_out else None
    best = Best(len(held_out.pixels) if held_out else 0)
    done, seconds = 0, 0.0
    if saved:
        checkpoint.restore(saved, recipe, optimiser, schedule, best)
        done, seconds = saved["step"], saved["seconds"]
    check_steps = max(1, config.steps // CHECKS)
    learn = TrainingStep(recipe, optimiser)
    log = _log(out, done)

    model.train()
    last_saved = time.monotonic()
    images_seen, since = 0, seconds  # since the last line of the log, for the rate
    progress = tqdm(
        range(done, done if best.exhausted else config.steps),
        initial=done,
        total=config.steps,
        desc="training",
        unit="step",
        disable=not distributed.is_first(),
    )
    shown: dict[str, object] = {}
    with _orderly_stop() as stop:
        if check and not done:
            best.start = distributed.value_of_first(_search_held_out(recipe, check))
            log({"step": 0, "seconds": 0.0, "held_out_mAP": round(best.start, 4)})
        if check:
            shown["mAP"] = best.progress
            progress.set_postfix(shown)
        for step in progress:
            started = time.monotonic()
            total, parts = learn()
            schedule.step()
            done = step + 1
            last = done == config.steps
            images_seen += recipe.labelled.batch + recipe.unlabelled.batch
            logs = done % LOG_STEPS == 0 or last
            checks = check and (done % check_steps == 0 or last)
            if logs or checks:
                _check_finite(total, done)  # waits for the device, so that the time counts
            seconds += time.monotonic() - started
            if logs:
                losses = {name: round(value.item(), 4) for name, value in parts.items()}
                rate = round(images_seen / max(seconds - since, 1e-9))
                images_seen, since = 0, seconds
                shown |= {**losses, "img/s": rate}
                progress.set_postfix(shown)
                log({"step": done, "seconds": round(seconds, 1), **losses})
            if check and checks:
                found_mAP = distributed.value_of_first(_search_held_out(recipe, check))
                best.offer(done, found_mAP, recipe.trained)
                shown["mAP"] = best.progress
                progress.set_postfix(shown)
                about = {"step": done, "seconds": round(seconds, 1)}
                log({**about, "held_out_mAP": round(best.last, 4)})
            asked = distributed.in_any_process(stop.asked)
            ended = last or best.exhausted
            if time.monotonic() - last_saved > CHECKPOINT_SECONDS or ended or asked:
                _check_finite(total, done)
                if distributed.is_first():
                    checkpoint.save(out, config, recipe, optimiser, schedule, best, done, seconds)
                last_saved = time.monotonic()
            if asked and not ended:
                raise Stopped(f"stopped at step {done} of {config.steps}; continue with --resume")
            if best.exhausted:
                break
    progress.close()
    if best.exhausted and distributed.is_first():
        print(
            f"stopped early at step {done}: mAP on the held-out images was best at step "
            f"{best.step}",
            file=sys.stderr,
        )
    best.restore(recipe.trained)
    batches = recipe.labelled.batch, recipe.unlabelled.batch
    return TrainingResult(recipe.trained, seconds, done, batches, _checked(held_out, best))


def _search_held_out(recipe: Recipe, check: Check) -> float:
    trained = recipe.trained
    means = trained.learnt_means()
    codebook = Codebook(
        trained.codewords().detach().float().cpu().numpy(),
        None if means is None else means.float().cpu().numpy(),
    )
    return check.mAP(recipe.embed, codebook)


def _checked(held_out: HeldOut | None, best: Best) -> dict[str, Any] | None:
    if held_out is None:
        return None
    figures = {"mAP": round(best.mAP, 4), "step": best.step, "start": round(best.start, 4)}
    return {"pictures": len(held_out.pixels), **figures}


def _log(out: Path, done: int) -> Callable[[dict[str, Any]], None]:
    """Returns a function that appends a JSON line to log.jsonl.

    Lines of steps after ``done`` are removed first. The function does nothing in processes other
    than the first.
    """
    if not distributed.is_first():
        return lambda line: None
    path = out / "log.jsonl"
    with writing(path):
        kept = path.read_text().splitlines() if done and path.exists() else []
        path.write_text("".join(f"{line}\n" for line in kept if _step_of(line) <= done))

    def write(line: dict[str, Any]) -> None:
        with writing(path), path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    return write


def _step_of(line: str) -> float:
    """Returns the step of a log line; infinity if the line is incomplete, as after a kill."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _check_finite(loss: Tensor, step: int) -> None:
    """Raises TrainerError if ``loss`` is not finite, before a good checkpoint is overwritten."""
    if not math.isfinite(loss.item()):
        raise TrainerError(
            f"the loss is {loss.item()} at step {step}, so the weights are lost: start again "
            "with a smaller --learning-rate; an earlier checkpoint is still valid"
        )
