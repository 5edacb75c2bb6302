"""The options of the command line."""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

from gpq.engine import engines
from gpq.engine.torch_architectures import DEFAULT_WIDTHS, EFFICIENTNETS, NETWORKS, TORCHVISION
from gpq.model import artifact
from gpq.system import device as gpq_device
from trainer.config import (
    BATCHES,
    BITS,
    FINE_RATE,
    FROZEN_STEPS,
    HELD_OUT,
    LAMBDAS,
    LEARNING_RATES,
    LOGITS,
    MODERN,
    PAPER,
    RECIPES,
    STEPS,
    VARIANTS,
    VIEWS,
)
from trainer.data import datasets
from trainer.frozen.cache import DEFAULT_GB, PLACE
from trainer.reproduce.grid import PAPER_BITS

MOST_BITS = 256  # a scan takes at most 64 codebooks
CACHE = (
    "Trainings keep the features of frozen networks in the folder that the environment variable "
    f"{PLACE} names, or in ~/.cache/gpq."
)


def parser() -> argparse.ArgumentParser:
    """Returns the parser; its ``command`` is the name of a command."""
    words = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    commands = words.add_subparsers(
        required=True,
        metavar="train|quantise|evaluate|report|cut|refit|precision|upgrade|reproduce|cache",
    )

    labelled, unlabelled = ({name: BATCHES[name][kind] for name in RECIPES} for kind in (0, 1))
    lambda1, lambda2 = (
        {name: LAMBDAS[name][which] for name in (PAPER, MODERN)} for which in (0, 1)
    )
    train = commands.add_parser("train", help="learn a model and write its artifact")
    train.set_defaults(command="train")
    add = train.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        help="folder with labeled/<class>/* and unlabeled/**, or a CSV or Parquet table",
    )
    add(
        "--out",
        type=Path,
        required=True,
        help="folder for the artifact, the checkpoint and the log",
    )
    _add_dataset(train)
    add("--bits", type=int, choices=BITS, default=48, help="code length (%(default)s)")
    add(
        "--network",
        metavar="NAME",
        help=f"{', '.join(sorted(NETWORKS))}, or onnx:FILE for a frozen image encoder, such as "
        "CLIP's (that of --init; without it paper: vgg; modern: resnet32, or resnet64 from "
        "--size 64 on)",
    )
    for option, what in (("--mean", "mean"), ("--std", "standard deviation")):
        add(
            option,
            type=float,
            nargs=3,
            metavar=("R", "G", "B"),
            help=f"{what} of each channel that onnx:FILE was trained with, on the 0–1 scale",
        )
    add("--width", type=_positive, help=f"channels of the first stage {_defaults(DEFAULT_WIDTHS)}")
    add(
        "--size",
        type=_positive,
        help="pixels a side of the square input (that of --init; without it 32; resnet64: 64; "
        "large networks: 224)",
    )
    add(
        "--recipe",
        choices=RECIPES,
        help="how to train (distilled for the last layer of a frozen network, else modern; for "
        "onnx:FILE and with --details, --teacher, --logits or --lambda1 and 2, too)",
    )
    add(
        "--details",
        type=int,
        help="number of last codebooks that learn details within classes (M - 8)",
    )
    add(
        "--variant", choices=VARIANTS, default="gpq", help="variant of --recipe paper (%(default)s)"
    )
    add("--lambda1", type=float, help=f"weight of L_cls {_defaults(lambda1)}")
    add("--lambda2", type=float, help=f"weight of the entropy {_defaults(lambda2)}")
    add(
        "--class-weight",
        type=float,
        help="weight of classes beside features in the similarity that --recipe distilled keeps; "
        "0.2 if many images are of kinds that no label names (1, or 2 for many classes)",
    )
    add(
        "--logits",
        choices=LOGITS,
        help=f"logits of the classifier ({LOGITS[0]})",
    )
    add(
        "--steps",
        type=_positive,
        help=f"optimiser steps {_defaults(STEPS)}; modern: {FROZEN_STEPS} for the last layer alone",
    )
    add("--batch-labelled", type=_positive, help=f"labelled images per step {_defaults(labelled)}")
    add(
        "--batch-unlabelled",
        type=_positive,
        help=f"unlabelled images per step {_defaults(unlabelled)}",
    )
    add(
        "--learning-rate",
        type=float,
        help=f"peak learning rate {_defaults(LEARNING_RATES)}; {FINE_RATE} if layers of "
        "efficientnet-* learn, not only the last",
    )
    add("--device", choices=gpq_device.NAMES, default="auto", help="where to compute (%(default)s)")
    add("--seed", type=_seed, default=0, help="seed of all random numbers (%(default)s)")
    add(
        "--held-out",
        type=float,
        metavar="SHARE",
        help=f"share of labelled images held out to find the best step {_defaults(HELD_OUT)}",
    )
    add(
        "--init",
        type=Path,
        metavar="MODEL_DIR",
        help="artifact whose network the training starts from (models/photos, unless an option "
        "chooses the network, its size or its weights)",
    )
    add(
        "--teacher",
        type=Path,
        metavar="MODEL_DIR",
        help="artifact that predicts the labels of unlabelled images",
    )
    add(
        "--pretrained",
        action="store_true",
        help=f"start from ImageNet weights ({', '.join((*TORCHVISION, *EFFICIENTNETS))})",
    )
    add(
        "--freeze",
        metavar="all|STAGES|none",
        help="learn only the last layer, or only what follows the first STAGES of the network, on "
        "features that are computed once (all for efficientnet-*, else none)",
    )
    add(
        "--views",
        type=_positive,
        help=f"views of each image that a frozen network sees {_defaults(VIEWS)}",
    )
    _add_cache_gb(train)
    add(
        "--compile",
        default="",
        metavar="BACKEND",
        help="back end of torch.compile, such as inductor",
    )
    add("--resume", action="store_true", help="continue from the checkpoint in --out")
    add("--overwrite", action="store_true", help="replace the run in --out")

    codes = commands.add_parser(
        "quantise", help="learn codes for a published network, from images of many kinds"
    )
    codes.set_defaults(command="quantise")
    add = codes.add_argument
    add(
        "--data",
        action="append",
        required=True,
        metavar="DIR[@PIXELS]",
        help="folder of images; may be repeated. Thumbnails are best learnt from at fewer PIXELS "
        "a side than the network's own",
    )
    add("--out", type=Path, required=True, help="folder for the artifact")
    add(
        "--network",
        choices=sorted((*EFFICIENTNETS, *TORCHVISION)),
        default="efficientnet-lite0",
        help="network with published weights (%(default)s)",
    )
    add("--size", type=_positive, help="pixels a side of images; default: the network's own")
    add("--bits", type=_code_length, default=256, help="code length (%(default)s)")
    add(
        "--kinds",
        action="store_true",
        help="the folders within --data are kinds of images, which the codes tell apart",
    )
    add(
        "--most",
        type=_positive,
        default=20_000,
        help="images of each folder to learn from, evenly spaced (%(default)s)",
    )
    add(
        "--source",
        action="append",
        default=[],
        type=_source,
        metavar="NAME:LICENCE",
        help="where images or weights come from, which the model records; may be repeated",
    )
    add(
        "--examples",
        type=Path,
        metavar="DIR",
        help="images of which the model contains a few, to check the engines that run it; "
        "default: those of --data",
    )
    add("--seed", type=_seed, default=0, help="seed of all random numbers (%(default)s)")
    add("--device", choices=gpq_device.NAMES, default="auto", help="where to compute (%(default)s)")
    add("--overwrite", action="store_true", help="replace the model in --out")
    _add_cache_gb(codes)

    searched = argparse.ArgumentParser(add_help=False)
    searched.add_argument("--model", type=Path, required=True, help="artifact folder")
    searched.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with train/ (database) and test/ (queries), folder of classes, or table",
    )
    _add_dataset(searched)

    computed = argparse.ArgumentParser(add_help=False)
    computed.add_argument(
        "--device", choices=gpq_device.NAMES, default="auto", help="where to compute (%(default)s)"
    )
    computed.add_argument(
        "--precision",
        choices=(engines.AUTO, *artifact.PRECISIONS),
        default=engines.AUTO,
        help="of the network's multiplications; auto: the model's own",
    )

    measure = commands.add_parser(
        "evaluate", parents=[searched, computed], help="measure the mAP of an artifact"
    )
    measure.set_defaults(command="evaluate")
    add = measure.add_argument
    add("--engine", default="auto", help="scan engine (%(default)s)")
    add("--bits", type=int, nargs="*", default=(), help="also measure codes cut to these lengths")
    add("--json", action="store_true", help="print a JSON line for each code length")
    add("--write", action="store_true", help="write the figures into the artifact's config.json")

    report = commands.add_parser(
        "report", parents=[searched, computed], help="write report.html into an artifact's folder"
    )
    report.set_defaults(command="report")
    add = report.add_argument
    add(
        "--title",
        default="Labelled images",
        help="description of --data in the report (%(default)s)",
    )

    shorter = commands.add_parser(
        "cut", help="make a model whose codes are the first bits of another's"
    )
    shorter.set_defaults(command="cut")
    add = shorter.add_argument
    add("--model", type=Path, required=True, help="artifact folder")
    add(
        "--bits",
        type=int,
        required=True,
        help="code length, a multiple of 4; 12, 24 and 32 are trained for",
    )
    add("--out", type=Path, required=True, help="folder for the artifact")
    add("--overwrite", action="store_true", help="replace the model in --out")

    means = commands.add_parser(
        "refit", help="recompute the means of codes and classes from images"
    )
    means.set_defaults(command="refit")
    add = means.add_argument
    add("--model", type=Path, required=True, help="artifact folder")
    add("--data", type=Path, required=True, help="images, in the layout of train")
    _add_dataset(means)
    add("--out", type=Path, required=True, help="folder for the artifact")
    add("--overwrite", action="store_true", help="replace the model in --out")

    less = commands.add_parser(
        "precision",
        parents=[searched],
        help="measure what bfloat16 costs a model; with --out, make a model for bfloat16",
    )
    less.set_defaults(command="precision")
    add = less.add_argument
    add("--json", action="store_true", help="print the figures as JSON")
    add("--out", type=Path, help="folder for a model that computes in bfloat16, if it costs little")
    add(
        "--examples",
        type=Path,
        metavar="DIR",
        help="images of which the model contains a few, to check the engines that run it; "
        "default: those that it contains",
    )
    add("--overwrite", action="store_true", help="replace the model in --out")

    older = commands.add_parser(
        "upgrade", help="add the graph of the network to models of earlier versions"
    )
    older.set_defaults(command="upgrade")
    add = older.add_argument
    add("folder", type=Path, nargs="*", metavar="DIR", help="artifact folder")
    add("--database", metavar="URL", help="also upgrade the models of a service's database")

    again = commands.add_parser(
        "reproduce", help="reproduce the tables and figures of the paper; can be continued"
    )
    again.set_defaults(command="reproduce")
    which = again.add_mutually_exclusive_group(required=True)
    which.add_argument("--table", type=int, choices=(2, 3), help="2: protocol 1; 3: protocol 2")
    which.add_argument(
        "--figure", type=int, choices=(3, 4, 5), help="3: curves; 4: loss weights; 5: variants"
    )
    add = again.add_argument
    add("--data", type=Path, help="folder of CIFAR-10")
    add("--nuswide", type=Path, help="folder of NUS-WIDE")
    add("--out", type=Path, default=Path("runs/reproduce"), help="folder for results (%(default)s)")
    add("--recipe", choices=(PAPER, MODERN), default="paper", help="how to train (%(default)s)")
    add(
        "--bits",
        type=int,
        nargs="+",
        choices=BITS,
        default=PAPER_BITS,
        help="code lengths (%(default)s)",
    )
    steps = {name: STEPS[name] for name in (PAPER, MODERN)}
    add("--steps", type=_positive, help=f"optimiser steps {_defaults(steps)}")
    add("--runs", type=_positive, help="make only this number of a table's runs")
    add("--device", choices=gpq_device.NAMES, default="auto", help="where to compute (%(default)s)")
    add("more", nargs="*", metavar="-- OPTION", help="further options of train")

    kept = commands.add_parser(
        "cache", help="show what the cache of features holds, or clear it", description=CACHE
    )
    kept.set_defaults(command="cache")
    kept.add_argument("--clear", action="store_true", help="drop all features")
    _add_cache_gb(kept)
    return words


def _add_cache_gb(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache-gb",
        type=_gigabytes,
        default=DEFAULT_GB,
        metavar="GB",
        help="limit of the cache of features; 0 turns it off (%(default)g)",
    )


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        choices=(datasets.FOLDER, *datasets.NAMES),
        default=datasets.FOLDER,
        metavar="NAME",
        help="kind of --data: folder, or a data set with a protocol of the paper: "
        + ", ".join(datasets.NAMES),
    )


def _defaults(values: Mapping[str, object]) -> str:
    """Formats the defaults of an option by recipe or by network, for its help text."""
    return f"({'; '.join(f'{name}: {value}' for name, value in values.items())})"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return value


def _gigabytes(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 upwards")
    return value


def _source(text: str) -> dict[str, str]:
    """Reads NAME:LICENCE."""
    name, _, licence = (part.strip() for part in text.partition(":"))
    if not name or not licence:
        raise argparse.ArgumentTypeError(f"{text!r} is not a name, a colon and a licence")
    return {"name": name, "licence": licence}


def _code_length(text: str) -> int:
    value = _positive(text)
    if value % 4 or value > MOST_BITS:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of 4 up to {MOST_BITS}")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not an integer from 0 to 2**63 - 1")
    return value
