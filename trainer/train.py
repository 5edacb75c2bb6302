"""The command ``train``: learns from images and writes an artifact."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from gpq import __version__
from gpq.engine import engines, torch_architectures
from gpq.model.model import Model
from gpq.model.weights import WEIGHTS
from gpq.pixels.preprocess import Preprocess
from gpq.system import device as gpq_device
from gpq.system import memory
from trainer import distributed
from trainer.artifacts.encoder import PREFIX, Encoder
from trainer.artifacts.encoder import read as read_encoder
from trainer.artifacts.export import LAST_LAYER, examples_of, export, load_body, start_from
from trainer.components import pretrained
from trainer.components.model import GPQ
from trainer.components.source import Source, read
from trainer.components.teacher import guess, labelled_rows
from trainer.components.views import FeatureViews
from trainer.config import REPORT, SUBVECTOR_DIMENSION, Config
from trainer.data import image_sets
from trainer.data.skipped import NAME as SKIPPED
from trainer.data.skipped import print_skipped, write_skipped
from trainer.device import describe, require_backend
from trainer.errors import TrainerError, writing
from trainer.evaluation.holdout import HeldOut, hold_out
from trainer.frozen.cache import GB, FeatureCache
from trainer.frozen.cache import folder as cache_folder
from trainer.frozen.estimate import estimate, show
from trainer.frozen.features import ViewFeatures, features_of
from trainer.frozen.part import Frozen, FrozenEncoder, FrozenNetwork, unfolded
from trainer.frozen.split import rest as rest_of
from trainer.initial import similarity
from trainer.options import (
    config_of,
    like,
    require_fitting_size,
    require_servable,
    rules_of,
    start_of,
)
from trainer.training import checkpoint, loop


def train(options: argparse.Namespace) -> None:
    """Trains a model and writes its artifact and its report.

    Options are checked before any image is read. Raises TrainerError and Stopped.
    """
    start = start_of(options)
    source = read(start) if start else None
    options = like(source, options) if source else options
    teacher = read(options.teacher) if options.teacher else None
    config = config_of(options, source.id if source else "", teacher.id if teacher else "")
    rules, encoder = rules_of(options, config), None
    if config.network.startswith(PREFIX):
        encoder = read_encoder(Path(config.network.removeprefix(PREFIX)), rules)
        config = replace(config, network=PREFIX + encoder.digest)
    else:
        require_fitting_size(config)
        require_servable(config)
    if source and source.size != config.size:
        print(
            f"--init {options.init} was trained on images of {source.size} pixels a side, "
            f"this run uses {config.size}: give --size {source.size} to keep the size",
            file=sys.stderr,
        )
    wanted = torch.device(gpq_device.pick(options.device))
    if config.compile:
        require_backend(config.compile, wanted)
    device = distributed.start(wanted)
    if device.type == "cpu":
        memory.keep_freed()
    else:
        torch.backends.cudnn.benchmark = True  # all steps are alike
    try:
        _train(options, config, rules, encoder, source, teacher, device)
    except RuntimeError as error:
        if not gpq_device.out_of_memory(error):
            raise
        raise TrainerError(
            "out of memory outside the training steps: give fewer images, a smaller --size or "
            f"--width, or another --device ({error})"
        ) from error
    finally:
        distributed.stop()


def _train(
    options: argparse.Namespace,
    config: Config,
    rules: Preprocess,
    encoder: Encoder | None,
    source: Source | None,
    teacher: Source | None,
    device: torch.device,
) -> None:
    saved = _prepare(options.out, config, resume=options.resume, overwrite=options.overwrite)
    torch.manual_seed(config.seed)
    frozen = _frozen(options, config, rules, encoder, source)
    if frozen:
        images, held_out = _features(options, config, rules, frozen, device)
    else:
        images = image_sets.training_set(options.data, config.dataset, rules)
        images, held_out = hold_out(images, config.held_out, config.seed)
    if distributed.is_first():
        print_skipped(images.skipped)
        write_skipped(images.skipped, options.out)
        print(_summary(images, held_out), file=sys.stderr)
    torch.manual_seed(config.seed)
    if teacher:
        teacher.network.to(device)
        images = replace(images, guesses=guess(teacher, images, config.seed))
    rest = frozen.rest(len(images.classes) if config.distilled else 0) if frozen else None
    model = GPQ(config, len(images.classes), rest).to(device)
    images = _on_device(images, device)
    if options.pretrained and not frozen:
        pretrained.load_pretrained(model.F, config.network)
    if config.distilled:
        if not saved:
            if distributed.is_first():
                print(f"learning a classifier of {len(images.classes)} classes", file=sys.stderr)
            similarity.start(model, images, config.seed, config.class_weight)
            distributed.copy_from_first(model)
    elif source:
        weights = source.network.state_dict()
        if frozen:
            own = {name: weights[name] for name in model.F.state_dict() if name in weights}
            weights = unfolded(own, images.standard)
        start_from(model, source, _initial_images(device, images), rules, weights)
    model.F = distributed.synchronise_batch_norm(model.F)
    result = loop.run(model, images, held_out, rules, config, options.out, device, saved)
    if not distributed.is_first():
        return
    training = {
        "command": _command(options),
        "started_from": _origin(source),
        "taught_by": _origin(teacher),
        "steps_done": result.steps,
        "seconds": round(result.seconds),
        "batch_labelled": result.batches[0],
        "batch_unlabelled": result.batches[1],
        "checked": result.held_out,
        "processes": distributed.world(),
        "device": describe(device),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {"gpq": __version__, "torch": str(torch.__version__)},
    }
    finish = partial(frozen.finish, standard=images.standard) if frozen else None
    with writing(options.out):
        model_id = export(
            result.model, config, rules, images, examples_of(images), options.out, training, finish
        )
    print(f"wrote {options.out}: model {model_id}", file=sys.stderr)
    _report(
        _finished(options.out, device),
        images,
        held_out,
        options.out,
        source,
        _after_frozen(result.model.F, images) if frozen else None,
        _after_frozen(_rest_before(source, config, images), images) if frozen and source else None,
        device,
    )


def _frozen(
    options: argparse.Namespace,
    config: Config,
    rules: Preprocess,
    encoder: Encoder | None,
    source: Source | None,
) -> Frozen | None:
    """Returns the frozen part of the network, with the weights that the run starts from."""
    dimension = config.M * SUBVECTOR_DIMENSION
    if encoder:
        return FrozenEncoder(encoder, dimension)
    if not config.frozen:
        return None
    network = torch_architectures.build(config.network, dimension, config.width)
    if options.pretrained:
        pretrained.load_pretrained(network, config.network)
    if source:
        weights = source.network.state_dict().items()
        load_body(network, {name: t for name, t in weights if name not in LAST_LAYER})
    return FrozenNetwork(network, config.stages, config.built, rules)


def _features(
    options: argparse.Namespace,
    config: Config,
    rules: Preprocess,
    frozen: Frozen,
    device: torch.device,
) -> tuple[image_sets.TrainingSet, HeldOut | None]:
    """Reads the images a few at a time and returns their features."""
    listed = image_sets.listed(options.data, config.dataset, rules)
    cache = FeatureCache(cache_folder(), round(options.cache_gb * GB))
    with closing(cache), frozen.running(device.type) as part:
        compute = ViewFeatures(part, cache, config.seed)
        show(estimate(listed, compute, frozen, config, rules, device))
        return features_of(
            listed,
            compute,
            config.views,
            config.held_out,
            config.seed,
            pooled=frozen.pooled,
            alike=config.distilled,
        )


def _summary(images: image_sets.TrainingSet, held_out: HeldOut | None) -> str:
    unlabelled = 0 if images.all_labelled else len(images.unlabelled)
    kept = len(held_out.pixels) if held_out else 0
    return (
        f"images to learn from: {len(images.labelled):,} labelled, of {len(images.classes):,} "
        f"classes, and {unlabelled:,} unlabelled; held out: {kept:,} labelled"
    )


def _finished(folder: Path, device: torch.device) -> Model:
    return engines.load(folder, engines.Options(device=device.type))


def _origin(source: Source | None) -> dict[str, object] | None:
    if source is None:
        return None
    about = source.artifact.about
    return {"id": source.id, "training": about.get("training"), "data": about.get("data")}


def _on_device(images: image_sets.TrainingSet, device: torch.device) -> image_sets.TrainingSet:
    moved = images.to(device)
    if moved is images and distributed.is_first():
        print(
            f"the images stay in the host's memory: {device} has no room for them", file=sys.stderr
        )
    return moved


def _initial_images(device: torch.device, images: image_sets.TrainingSet) -> image_sets.TrainingSet:
    """Returns the images that ``start_from`` uses, on the device."""
    rows = labelled_rows(images)
    labelled, labels = images.labelled[rows].to(device), images.labels[rows].to(device)
    return replace(images, labelled=labelled, labels=labels)


def _report(
    model: Model,
    images: image_sets.TrainingSet,
    held_out: HeldOut | None,
    folder: Path,
    source: Source | None,
    rest: Callable[[Tensor], Tensor] | None,
    rest_before: Callable[[Tensor], Tensor] | None,
    device: torch.device,
) -> None:
    try:
        from trainer.report.training import report_training  # slow to import, and optional
    except ImportError as error:
        print(f"no report is written: {error}; install the extra `train`", file=sys.stderr)
        return
    options = engines.Options(engine="torch", device=device.type)
    before = engines.start(source.artifact, options) if source else None
    report_training(model, images, held_out, folder, before, rest, rest_before)


def _rest_before(source: Source, config: Config, images: image_sets.TrainingSet) -> nn.Module:
    """Returns the layers of the model that the run started from, after the same frozen part."""
    before = rest_of(source.network, config.stages, config.size).to(images.labelled.device)
    before.load_state_dict(unfolded(before.state_dict(), images.standard))
    return before


def _after_frozen(rest: nn.Module, images: image_sets.TrainingSet) -> Callable[[Tensor], Tensor]:
    """Returns what a network computes of features (B,V,E) of its frozen part."""
    device, views = next(rest.parameters()).device, FeatureViews(images.standard)

    def compute(features: Tensor) -> Tensor:
        found: Tensor = rest(views.plain(features.to(device))).float()
        return found

    rest.eval()
    return compute


def _prepare(
    out: Path, config: Config, *, resume: bool, overwrite: bool
) -> checkpoint.Saved | None:
    """Prepares the folder ``out``; returns the checkpoint to resume from, if any.

    Raises TrainerError if the results of another run would be lost.
    """
    if resume:
        return checkpoint.read(out, config)
    if out.exists() and not out.is_dir():
        raise TrainerError(f"--out: {out} is a file: name a folder")
    there = [name for name in (checkpoint.NAME, WEIGHTS) if (out / name).exists()]
    if there and not overwrite:
        raise TrainerError(
            f"--out: {out} has {' and '.join(there)} of another run: name another folder, "
            "continue that run with --resume, or replace it with --overwrite"
        )
    if distributed.is_first():
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            for name in (checkpoint.NAME, REPORT, SKIPPED):  # files of the run that is replaced
                (out / name).unlink(missing_ok=True)
    return None


def _command(options: argparse.Namespace) -> str:
    """Returns the command line as given, with placeholders for the places of this machine."""
    places = {"--data": "DATA", "--out": "OUT", "--init": "MODEL_DIR", "--teacher": "TEACHER_DIR"}
    words: list[str] = []
    for word in options.words:
        name, equals, _ = word.partition("=")
        if words and words[-1] in places:
            words.append(places[words[-1]])
        elif equals and name in places:
            words += [name, places[name]]
        else:
            head, encoder, _ = word.partition(PREFIX)
            words.append(f"{head}{PREFIX}FILE" if encoder else word)
    return shlex.join(["python", "-m", "trainer", *words])
