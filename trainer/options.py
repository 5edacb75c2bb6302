"""Turns the options of the command ``train`` into the settings of a run, and checks them."""

import argparse
import math
from pathlib import Path

import torch

from gpq.engine import torch_architectures
from gpq.engine.torch_architectures import DEFAULT_WIDTHS, EFFICIENTNETS, NETWORKS, TORCHVISION
from gpq.pixels.preprocess import JPEG_SCALED, Preprocess
from trainer import distributed
from trainer.artifacts import graph
from trainer.artifacts.encoder import PREFIX
from trainer.components import pretrained
from trainer.components.source import Source
from trainer.config import (
    BATCHES,
    DISTILLED,
    FINE_RATE,
    FREEZE_ALL,
    FREEZE_NONE,
    FROZEN_STEPS,
    HELD_OUT,
    LAMBDAS,
    LEARNING_RATES,
    LOGITS,
    MODERN,
    PAPER,
    STEPS,
    SUBVECTOR_DIMENSION,
    VIEWS,
    Architecture,
    Config,
    default_details,
)
from trainer.data.datasets import FOLDER
from trainer.errors import TrainerError
from trainer.frozen.split import stages_of

MAX_HELD_OUT = 0.5
MIN_RESNET64_SIZE = 64  # pixels a side from which resnet64, which halves them, is the default
DEFAULT_SIZES = {
    "vgg": 32, "resnet": 32, "resnet32": 32, "resnet64": 64, "early32": 32, "early64": 64,
    "efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260,
}  # fmt: skip
DEFAULT_SIZE = 224  # pixels a side for the other networks
START = Path(__file__).parent.parent / "models" / "photos"  # where trainings start by default


def start_of(options: argparse.Namespace) -> Path | None:
    """Returns the model that a run starts from, or None for random or published weights.

    Own images are learnt on the features of the shipped model of photographs, unless an option
    chooses another network or its weights.
    """
    given: Path | None = options.init
    others = ("network", "size", "width", "pretrained", "compile")
    if given or options.dataset != FOLDER or options.recipe == PAPER:
        return given
    if options.freeze == FREEZE_NONE or any(getattr(options, name) for name in others):
        return None
    return START


def like(source: Source, options: argparse.Namespace) -> argparse.Namespace:
    """Returns the options with the network of the model that the run starts from, if none is given.

    So are its width and its size.
    """
    if options.network or source.artifact.network["name"] not in NETWORKS:
        return options
    network, size = source.artifact.network, options.size or source.size
    width = options.width or network["width"] or None
    chosen = {"init": source.artifact.folder, "network": network["name"]}
    return argparse.Namespace(**{**vars(options), **chosen, "width": width, "size": size})


def config_of(options: argparse.Namespace, init: str, teacher: str) -> Config:
    """Returns the settings of a run, with the defaults of its recipe and of its network.

    ``init``, ``teacher``: ids of the artifacts that these options name, or empty. Raises
    TrainerError if options contradict each other.
    """
    name = options.network or _default_network(options)
    _require_encoder_options(options, name)
    freeze = _freeze(options, name)
    recipe = _recipe(options, name, freeze)
    labelled, unlabelled = BATCHES[recipe]
    lambda1, lambda2 = LAMBDAS[recipe]
    config = Config(
        recipe=recipe,
        variant=options.variant,
        network=name,
        width=options.width or DEFAULT_WIDTHS.get(name, 0),
        size=options.size or DEFAULT_SIZES.get(name, DEFAULT_SIZE),
        bits=options.bits,
        details=_details(options, recipe),
        logits=options.logits or LOGITS[0],
        steps=options.steps or _default_steps(recipe, freeze),
        batch_labelled=options.batch_labelled or labelled,
        batch_unlabelled=options.batch_unlabelled or unlabelled,
        learning_rate=_default_rate(recipe, name, freeze)
        if options.learning_rate is None
        else options.learning_rate,
        lambda1=lambda1 if options.lambda1 is None else options.lambda1,
        lambda2=lambda2 if options.lambda2 is None else options.lambda2,
        held_out=HELD_OUT[recipe] if options.held_out is None else options.held_out,
        seed=options.seed,
        dataset=options.dataset,
        init=init,
        teacher=teacher,
        compile=options.compile,
        freeze=freeze,
        views=(options.views or VIEWS[recipe]) if freeze != FREEZE_NONE else 0,
        class_weight=options.class_weight,
    )
    if not 0 < config.learning_rate < math.inf:
        raise TrainerError(f"--learning-rate {config.learning_rate}: give a number above 0")
    for option in ("lambda1", "lambda2", "class_weight"):
        if not 0 <= (value := getattr(config, option) or 0) < math.inf:
            name = option.replace("_", "-")
            raise TrainerError(f"--{name} {value}: give a number from 0 upwards")
    if config.class_weight is not None and recipe != DISTILLED:
        raise TrainerError("--class-weight is only for --recipe distilled")
    if options.pretrained:
        pretrained.require_pretrained(name)
    if options.pretrained and options.init:
        raise TrainerError(
            "--pretrained and --init both set the network's weights: give only one of them"
        )
    if options.teacher and recipe != MODERN:
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


def _freeze(options: argparse.Namespace, name: str) -> str:
    """Returns which part of the network ``name`` is frozen: all, none or a number of stages."""
    if name.startswith(PREFIX):
        if options.freeze not in (None, FREEZE_ALL):
            raise TrainerError(f"--freeze {options.freeze}: --network {PREFIX}FILE is frozen whole")
        return FREEZE_ALL
    freeze = str(options.freeze or (FREEZE_ALL if name in EFFICIENTNETS else FREEZE_NONE))
    if freeze == FREEZE_NONE:
        if options.views:
            raise TrainerError("--views is only for networks of which a part is frozen (--freeze)")
        return freeze
    if not options.pretrained and not options.init:
        raise TrainerError(
            f"--network {name} with --freeze {freeze} would freeze random weights: give "
            "--pretrained or --init, or learn all layers with --freeze none"
        )
    if freeze != FREEZE_ALL:
        stages = stages_of(name)
        if not stages:
            raise TrainerError(
                f"--freeze {freeze}: {name} has no stages to freeze: give all or none"
            )
        if not freeze.isdecimal() or not 1 <= int(freeze) <= stages:
            raise TrainerError(
                f"--freeze {freeze}: give all, none, or how many of the {stages} stages of {name} "
                "are frozen"
            )
        freeze = str(int(freeze))
    return freeze


def _recipe(options: argparse.Namespace, name: str, freeze: str) -> str:
    """Returns the recipe: the given one, or the default for what learns.

    Raises TrainerError if it is not for the network.
    """
    given = [
        option
        for option in ("details", "teacher", "logits", "lambda1", "lambda2")
        if getattr(options, option) is not None
    ]
    whole = freeze == FREEZE_ALL and not name.startswith(PREFIX)
    if options.recipe:
        if options.recipe == DISTILLED and not whole:
            raise TrainerError(
                "--recipe distilled learns only the last layer of a network: give --freeze all, "
                f"and no --network {PREFIX}FILE"
            )
        if options.recipe == DISTILLED and given:
            raise TrainerError(f"--{given[0]} is only for --recipe modern")
        return str(options.recipe)
    return DISTILLED if whole and not given else MODERN


def _default_steps(recipe: str, freeze: str) -> int:
    return FROZEN_STEPS if (recipe, freeze) == (MODERN, FREEZE_ALL) else STEPS[recipe]


def _default_rate(recipe: str, network: str, freeze: str) -> float:
    fine = recipe == MODERN and network in EFFICIENTNETS and freeze != FREEZE_ALL
    return FINE_RATE if fine else LEARNING_RATES[recipe]


def _default_network(options: argparse.Namespace) -> str:
    if options.recipe == PAPER:
        return "vgg"
    return "resnet64" if options.size and options.size >= MIN_RESNET64_SIZE else "resnet32"


def _details(options: argparse.Namespace, recipe: str) -> int:
    M = int(options.bits) // 4
    if options.details and recipe != MODERN:
        raise TrainerError("--details is only for --recipe modern")
    if recipe == PAPER:
        return M if options.variant == "gpq-h" else 0
    if options.variant != "gpq":
        raise TrainerError(f"--variant {options.variant} is only for --recipe paper")
    if recipe == DISTILLED:
        return M
    details = default_details(options.bits) if options.details is None else int(options.details)
    if not 0 <= details < M:
        raise TrainerError(
            f"--details {details} of {M} codebooks leaves none for the classes: give a number from "
            f"0 to {M - 1}"
        )
    return details


def rules_of(options: argparse.Namespace, config: Config) -> Preprocess:
    """Returns the rules by which images become the input of the network."""
    if config.network.startswith(PREFIX):
        mean, std = (
            tuple(255 * value for value in of_each) for of_each in (options.mean, options.std)
        )
        return Preprocess(config.size, mean, std, jpeg=JPEG_SCALED)
    return rules_for(config.network, config.size)


def rules_for(network: str, size: int) -> Preprocess:
    """Returns the rules of a network of the project, for images of ``size`` pixels a side."""
    if network in TORCHVISION:
        return Preprocess(size, pretrained.MEAN, pretrained.STD, jpeg=JPEG_SCALED)
    if network in EFFICIENTNETS:
        return Preprocess(size, pretrained.LITE_MEAN, pretrained.LITE_STD, jpeg=JPEG_SCALED)
    return Preprocess(size, jpeg=JPEG_SCALED)


def require_fitting_size(config: Config | Architecture) -> None:
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


def require_servable(config: Config) -> None:
    """Raises TrainerError if the trained network could not be written, or no service could run it.

    The networks of DEFAULT_SIZES are known to be fine up to their default width and size, so that
    the seconds of the check are saved. Where no graph can be exported, nothing is checked.
    """
    name = config.network
    usual = (
        name in DEFAULT_SIZES
        and config.width <= DEFAULT_WIDTHS.get(name, 0)
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
