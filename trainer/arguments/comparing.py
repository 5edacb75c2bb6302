"""The options of the commands that compare methods: ``compare`` and ``reproduce``."""

import argparse
from pathlib import Path

from gpq.engine.torch_architectures import EFFICIENTNETS, TORCHVISION
from gpq.system import device as gpq_device
from trainer.arguments.values import Commands, add_cache_gb, code_length, defaults, positive
from trainer.config import BITS, EVERY_METHOD, MODERN, PAPER, STEPS
from trainer.options import DEFAULT_SIZES
from trainer.reproduce.grid import NETWORK, PAPER_BITS, SIZE, VARIANTS

COMPARED_BITS = (24, 48)
MOST_MINUTES = 10


def add_compare(commands: Commands) -> None:
    compared = commands.add_parser(
        "compare", help="measure every method of the paper on your own images; can be continued"
    )
    compared.set_defaults(command="compare")
    add = compared.add_argument
    add(
        "--data",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="folder of <class>/*, or of train/<class>/* and test/<class>/*, or a CSV or Parquet "
        "table; may be repeated",
    )
    add(
        "--bits",
        type=code_length,
        nargs="+",
        default=COMPARED_BITS,
        help="code lengths (%(default)s)",
    )
    add(
        "--labels",
        type=positive,
        metavar="N",
        help="images of each class whose labels are used, at least; the others are unlabelled; "
        "default: all",
    )
    add(
        "--minutes",
        type=positive,
        default=MOST_MINUTES,
        help="a method that learns for longer is left out (%(default)s)",
    )
    add(
        "--artifacts",
        action="store_true",
        help="write each method but LOPQ and DTQ as an artifact, which a service can load",
    )
    add("--out", type=Path, default=Path("runs/compare"), help="folder for results (%(default)s)")
    _add_features(compared, f"default: its own {defaults(DEFAULT_SIZES)}")
    compared.set_defaults(methods=[EVERY_METHOD], seeds=1, network=NETWORK)


def _add_features(parser: argparse.ArgumentParser, size: str) -> None:
    """Adds the options of methods and of features, without defaults. ``size``: the default of
    --size, in words."""
    add = parser.add_argument
    add(
        "--methods",
        nargs="+",
        metavar="NAME",
        help=f"methods to compare, such as PQ ITQ GPQ ({EVERY_METHOD})",
    )
    add("--seeds", type=positive, help="trainings of each method (1)")
    add(
        "--network",
        choices=sorted((*EFFICIENTNETS, *TORCHVISION)),
        help=f"network with published weights, which makes the features ({NETWORK})",
    )
    add("--size", type=positive, help=f"pixels a side of its images ({size})")
    add(
        "--device",
        choices=gpq_device.NAMES,
        default="auto",
        help="where to compute features, or to train (%(default)s)",
    )
    add_cache_gb(parser)


def add_reproduce(commands: Commands) -> None:
    again = commands.add_parser(
        "reproduce", help="reproduce the tables and figures of the paper; can be continued"
    )
    again.set_defaults(command="reproduce")
    which = again.add_mutually_exclusive_group(required=True)
    which.add_argument("--table", type=int, choices=(2, 3), help="2: protocol 1; 3: protocol 2")
    which.add_argument(
        "--figure", type=int, choices=(3, 4, 5), help="3: curves; 4: loss weights; 5: t-SNE maps"
    )
    add = again.add_argument
    add("--data", type=Path, help="folder of CIFAR-10")
    add("--nuswide", type=Path, help="folder of NUS-WIDE")
    add("--out", type=Path, default=Path("runs/reproduce"), help="folder for results (%(default)s)")
    add(
        "--recipe",
        choices=(PAPER, MODERN),
        help="train GPQ on pixels, by this recipe, instead of comparing methods on features; "
        f"--methods then names its variants ({', '.join(VARIANTS)}; GPQ)",
    )
    _add_features(again, str(SIZE))
    add(
        "--bits",
        type=int,
        nargs="+",
        choices=BITS,
        default=PAPER_BITS,
        help="code lengths (%(default)s)",
    )
    steps = {name: STEPS[name] for name in (PAPER, MODERN)}
    add("--steps", type=positive, help=f"optimiser steps {defaults(steps)}")
    add(
        "--runs",
        type=positive,
        help="make only this number of a table's runs, or of draws without --recipe",
    )
    add("more", nargs="*", metavar="-- OPTION", help="further options of train")
