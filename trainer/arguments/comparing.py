"""The options of the commands that compare methods: ``compare`` and ``reproduce``."""

import argparse
from pathlib import Path

from gpq.engine.torch_architectures import EFFICIENTNETS, TORCHVISION
from gpq.system import device as gpq_device
from trainer.arguments.values import Commands, add_cache_gb, code_length, defaults, positive
from trainer.config import BITS, MODERN, PAPER, STEPS
from trainer.options import DEFAULT_SIZES
from trainer.reproduce.grid import PAPER_BITS

COMPARED_BITS = (24, 48)
REPRODUCED_SIZE = 128  # CIFAR-10's images have 32 pixels a side


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
        help="folder of <class>/*, or of train/<class>/* and test/<class>/*; may be repeated",
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
        help="images of each class whose labels are used; the others are unlabelled; default: all",
    )
    add("--out", type=Path, default=Path("runs/compare"), help="folder for results (%(default)s)")
    add_methods(compared, None)


def add_methods(parser: argparse.ArgumentParser, size: int | None) -> None:
    """Adds the options of the methods and of the features. ``size``: default of --size."""
    add = parser.add_argument
    add(
        "--methods",
        nargs="+",
        default=["all"],
        metavar="NAME",
        help="methods to compare, such as PQ ITQ GPQ (%(default)s)",
    )
    add("--seeds", type=positive, default=1, help="trainings of each method (%(default)s)")
    add(
        "--network",
        choices=sorted((*EFFICIENTNETS, *TORCHVISION)),
        default="efficientnet-lite0",
        help="network with published weights, which makes the features (%(default)s)",
    )
    own = "%(default)s" if size else f"default: its own {defaults(DEFAULT_SIZES)}"
    add("--size", type=positive, default=size, help=f"pixels a side of its images ({own})")
    add("--device", choices=gpq_device.NAMES, default="auto", help="where to compute (%(default)s)")
    add_cache_gb(parser)


def add_reproduce(commands: Commands) -> None:
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
    add(
        "--recipe",
        choices=(PAPER, MODERN),
        help="train GPQ on pixels, by this recipe, instead of comparing methods on features; "
        "figures always do (paper)",
    )
    add_methods(again, REPRODUCED_SIZE)
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
    add("--runs", type=positive, help="make only this number of a table's runs")
    add("more", nargs="*", metavar="-- OPTION", help="further options of train")
