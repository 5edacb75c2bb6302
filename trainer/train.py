"""The command ``train``: learns from images and writes an artifact."""

import argparse
import math
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from gpq import __version__
from gpq.engine import engines, torch_architectures
from gpq.engine.torch_architectures import DEFAULT_WIDTHS, NETWORKS, TORCHVISION
from gpq.model.model import Model
from gpq.model.weights import WEIGHTS
from gpq.pixels.preprocess import JPEG_SCALED, Preprocess
from gpq.system import device as gpq_device
from gpq.system import memory
from trainer import distributed
from trainer.artifacts import graph
from trainer.artifacts.encoder import PREFIX, Encoder, freeze
from trainer.artifacts.encoder import read as read_encoder
from trainer.artifacts.export import examples_of, export, start_from
from trainer.components import pretrained
from trainer.components.head import Head
from trainer.components.model import GPQ
from trainer.components.source import Source, read
from trainer.components.teacher import guess, labelled_rows
from trainer.config import (
    BATCHES,
    HELD_OUT,
    LAMBDAS,
    LEARNING_RATES,
    REPORT,
    STEPS,
    SUBVECTOR_DIMENSION,
    Config,
    default_details,
)
from trainer.data import image_sets
from trainer.data.skipped import NAME as SKIPPED
from trainer.data.skipped import print_skipped, write_skipped
from trainer.device import describe, require_backend
from trainer.errors import TrainerError, writing
from trainer.evaluation.holdout import HeldOut, hold_out
from trainer.training import checkpoint, loop

MAX_HELD_OUT = 0.5
MIN_RESNET64_SIZE = 64  # pixels a side from which resnet64, which halves them, is the default
DEFAULT_SIZES = {
    "vgg": 32, "resnet": 32, "resnet32": 32, "resnet64": 64, "early32": 32, "early64": 64,
}  # fmt: skip
DEFAULT_SIZE = 224  # pixels a side for the other networks


def train(options: argparse.Namespace) -> None:
    """Trains a model and writes its artifact and its report.

    Options are checked before any image is read. Raises TrainerError and Stopped.
    """
    source = read(options.init) if options.init else None
    teacher = read(options.teacher) if options.teacher else None
    config = _config(options, source.id if source else "", teacher.id if teacher else "")
    rules, encoder = _rules(options, config), None
    if config.network.startswith(PREFIX):
        encoder = read_encoder(Path(config.network.removeprefix(PREFIX)), rules)
        config = replace(config, network=PREFIX + encoder.digest)
    else:
        _require_fitting_size(config)
        _require_servable(config)
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
    images = image_sets.training_set(options.data, config.dataset, rules)
    if distributed.is_first():
        print_skipped(images.skipped)
        write_skipped(images.skipped, options.out)
    images, held_out = hold_out(images, config.held_out, config.seed)
    if distributed.is_first():
        print(_summary(images, held_out), file=sys.stderr)
    torch.manual_seed(config.seed)
    if teacher:
        teacher.network.to(device)
        images = replace(images, guesses=guess(teacher, images, config.seed))
    learnt, checked, frozen, head = images, held_out, None, None
    if encoder:
        frozen, learnt, checked = freeze(encoder, images, held_out, device.type)
        head = Head(encoder.dimension, config.M * SUBVECTOR_DIMENSION)
    model = GPQ(config, len(images.classes), head).to(device)
    learnt = _on_device(learnt, device)
    if options.pretrained:
        pretrained.load_pretrained(model.F, config.network)
    if source:
        start_from(model, source, _initial_images(device, learnt), rules)
    model.F = distributed.synchronise_batch_norm(model.F)
    result = loop.run(model, learnt, checked, rules, config, options.out, device, saved)
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
    with writing(options.out):
        model_id = export(
            result.model, config, rules, learnt, examples_of(images), options.out, training, frozen
        )
    print(f"wrote {options.out}: model {model_id}", file=sys.stderr)
    _report(
        _finished(options.out, device),
        images,
        held_out,
        options.out,
        source,
        (result.model.F, learnt, checked) if frozen else None,
        device,
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


def _require_fitting_size(config: Config) -> None:
    """Raises TrainerError if images are too small for the network, or a package is missing."""
    try:
        with torch.device("meta"):  # computes only shapes
            net = torch_architectures.build(config.network, 1, config.width).eval()
            net(torch.zeros(1, 3, config.size, config.size))
    except ValueError as error:
        raise TrainerError(str(error)) from error
    except RuntimeError as error:
        raise TrainerError(
            f"--size {config.size} is too small for network {config.network}: {error}"
        ) from error


def _require_servable(config: Config) -> None:
    """Raises TrainerError if the trained network could not be written, or no service could run it.

    Networks with a width are known to be fine up to their default width and size, so that the
    seconds of the check are saved. Where no graph can be exported, nothing is checked.
    """
    name = config.network
    usual = (
        name in DEFAULT_WIDTHS
        and config.width <= DEFAULT_WIDTHS[name]
        and config.size <= DEFAULT_SIZES[name]
    )
    if usual or graph.missing():
        return
    dimension = config.M * SUBVECTOR_DIMENSION
    network = torch_architectures.build(name, dimension, config.width)
    try:
        graph.require_servable(network, config.size, dimension)
    except TrainerError as error:
        raise TrainerError(f"--network {name} --size {config.size}: {error}") from error


def _report(
    model: Model,
    images: image_sets.TrainingSet,
    held_out: HeldOut | None,
    folder: Path,
    source: Source | None,
    frozen: tuple[nn.Module, image_sets.TrainingSet, HeldOut | None] | None,
    device: torch.device,
) -> None:
    try:
        from trainer.report.training import report_training  # slow to import, and optional
    except ImportError as error:
        print(f"no report is written: {error}; install the extra `train`", file=sys.stderr)
        return
    options = engines.Options(engine="torch", device=device.type)
    before = engines.start(source.artifact, options) if source else None
    report_training(model, images, held_out, folder, before, frozen)


def _config(options: argparse.Namespace, init: str, teacher: str) -> Config:
    name = options.network or _default_network(options)
    _require_encoder_options(options, name)
    labelled, unlabelled = BATCHES[options.recipe]
    lambda1, lambda2 = LAMBDAS[options.recipe]
    config = Config(
        recipe=options.recipe,
        variant=options.variant,
        network=name,
        width=options.width or DEFAULT_WIDTHS.get(name, 0),
        size=options.size or DEFAULT_SIZES.get(name, DEFAULT_SIZE),
        bits=options.bits,
        details=_details(options),
        logits=options.logits,
        steps=options.steps or STEPS[options.recipe],
        batch_labelled=options.batch_labelled or labelled,
        batch_unlabelled=options.batch_unlabelled or unlabelled,
        learning_rate=LEARNING_RATES[options.recipe]
        if options.learning_rate is None
        else options.learning_rate,
        lambda1=lambda1 if options.lambda1 is None else options.lambda1,
        lambda2=lambda2 if options.lambda2 is None else options.lambda2,
        held_out=HELD_OUT[options.recipe] if options.held_out is None else options.held_out,
        seed=options.seed,
        dataset=options.dataset,
        init=init,
        teacher=teacher,
        compile=options.compile,
    )
    if not 0 < config.learning_rate < math.inf:
        raise TrainerError(f"--learning-rate {config.learning_rate}: give a number above 0")
    for weight in ("lambda1", "lambda2"):
        if not 0 <= (value := getattr(config, weight)) < math.inf:
            raise TrainerError(f"--{weight} {value}: give a number from 0 upwards")
    if options.pretrained:
        pretrained.require_pretrained(name)
    if options.pretrained and options.init:
        raise TrainerError(
            "--pretrained and --init both set the network's weights: give only one of them"
        )
    if options.teacher and options.recipe == "paper":
        raise TrainerError("--teacher is only for --recipe modern")
    if not 0 <= config.held_out <= MAX_HELD_OUT:
        raise TrainerError(f"--held-out {config.held_out}: give a share from 0 to {MAX_HELD_OUT}")
    processes = distributed.requested_processes()
    if config.batch_labelled % processes or config.batch_unlabelled % processes:
        raise TrainerError(
            f"--batch-labelled {config.batch_labelled} and --batch-unlabelled "
            f"{config.batch_unlabelled} must be multiples of the {processes} processes"
        )
    return config


def _require_encoder_options(options: argparse.Namespace, name: str) -> None:
    """Raises TrainerError if an option and --network onnx:FILE, or its absence, contradict."""
    given = [f"--{option}" for option in ("mean", "std") if getattr(options, option)]
    if not name.startswith(PREFIX):
        if name not in NETWORKS:
            raise TrainerError(
                f"--network {name}: choose one of {', '.join(sorted(NETWORKS))}, or {PREFIX}FILE"
            )
        if given:
            raise TrainerError(f"{' and '.join(given)} are only for --network {PREFIX}FILE")
        return
    if len(given) < 2 or not options.size:
        raise TrainerError(
            f"--network {PREFIX}FILE needs --size, --mean and --std: the side of its images in "
            "pixels, and the mean and the deviation of each channel that it was trained with"
        )
    if max(options.mean + options.std) > 1 or min(options.std) <= 0:
        raise TrainerError("--mean and --std are on the 0–1 scale: divide yours by 255")
    for option in ("init", "pretrained", "width", "compile"):
        if getattr(options, option):
            raise TrainerError(f"--{option} is not for --network {PREFIX}FILE, which is frozen")


def _default_network(options: argparse.Namespace) -> str:
    if options.recipe == "paper":
        return "vgg"
    return "resnet64" if options.size and options.size >= MIN_RESNET64_SIZE else "resnet32"


def _details(options: argparse.Namespace) -> int:
    M = int(options.bits) // 4
    if options.recipe == "paper":
        if options.details:
            raise TrainerError("--details is only for --recipe modern")
        return M if options.variant == "gpq-h" else 0
    if options.variant != "gpq":
        raise TrainerError(f"--variant {options.variant} is only for --recipe paper")
    details = default_details(options.bits) if options.details is None else int(options.details)
    if not 0 <= details < M:
        raise TrainerError(
            f"--details {details} of {M} codebooks leaves none for the classes: give a number from "
            f"0 to {M - 1}"
        )
    return details


def _rules(options: argparse.Namespace, config: Config) -> Preprocess:
    if config.network.startswith(PREFIX):
        mean, std = (
            tuple(255 * value for value in of_each) for of_each in (options.mean, options.std)
        )
        return Preprocess(config.size, mean, std, jpeg=JPEG_SCALED)
    if config.network in TORCHVISION:
        return Preprocess(config.size, pretrained.MEAN, pretrained.STD, jpeg=JPEG_SCALED)
    return Preprocess(config.size, jpeg=JPEG_SCALED)


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
