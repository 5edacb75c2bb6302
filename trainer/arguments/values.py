"""Options that several commands of the trainer have, and the kinds of their values."""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from trainer.data import datasets
from trainer.frozen.cache import DEFAULT_GB

MOST_BITS = 256  # a scan takes at most 64 codebooks
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def of_searches() -> argparse.ArgumentParser:
    """Returns the options of commands that search with a model."""
    searched = argparse.ArgumentParser(add_help=False)
    searched.add_argument("--model", type=Path, required=True, help="artifact folder")
    searched.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with train/ (database) and test/ (queries), folder of classes, or table",
    )
    add_dataset(searched)
    return searched


def add_cache_gb(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache-gb",
        type=gigabytes,
        default=DEFAULT_GB,
        metavar="GB",
        help="limit of the cache of features; 0 turns it off (%(default)g)",
    )


def add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        choices=(datasets.FOLDER, *datasets.NAMES),
        default=datasets.FOLDER,
        metavar="NAME",
        help="kind of --data: folder, or a data set with a protocol of the paper: "
        + ", ".join(datasets.NAMES),
    )


def defaults(values: Mapping[str, object]) -> str:
    """Formats the defaults of an option by recipe or by network, for its help text."""
    return f"({'; '.join(f'{name}: {value}' for name, value in values.items())})"


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return value


def gigabytes(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 upwards")
    return value


def source(text: str) -> dict[str, str]:
    """Reads NAME:LICENCE."""
    name, _, licence = (part.strip() for part in text.partition(":"))
    if not name or not licence:
        raise argparse.ArgumentTypeError(f"{text!r} is not a name, a colon and a licence")
    return {"name": name, "licence": licence}


def code_length(text: str) -> int:
    value = positive(text)
    if value % 4 or value > MOST_BITS:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of 4 up to {MOST_BITS}")
    return value


def seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not an integer from 0 to 2**63 - 1")
    return value
