"""The options of the commands that measure models, and make models from others."""

import argparse
from pathlib import Path

from gpq.engine import engines
from gpq.model import artifact
from gpq.system import device as gpq_device
from trainer.arguments.values import Commands, add_cache_gb, add_dataset, of_searches
from trainer.frozen.cache import PLACE

CACHE = (
    "Trainings keep the features of frozen networks in the folder that the environment variable "
    f"{PLACE} names, or in ~/.cache/gpq."
)


def add_measures(commands: Commands) -> None:
    searched = of_searches()
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


def add_cut_and_refit(commands: Commands) -> None:
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
    add_dataset(means)
    add("--out", type=Path, required=True, help="folder for the artifact")
    add("--overwrite", action="store_true", help="replace the model in --out")


def add_precision(commands: Commands) -> None:
    searched = of_searches()
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


def add_upgrade(commands: Commands) -> None:
    older = commands.add_parser(
        "upgrade", help="add the graph of the network to models of earlier versions"
    )
    older.set_defaults(command="upgrade")
    add = older.add_argument
    add("folder", type=Path, nargs="*", metavar="DIR", help="artifact folder")
    add("--database", metavar="URL", help="also upgrade the models of a service's database")


def add_cache(commands: Commands) -> None:
    kept = commands.add_parser(
        "cache", help="show what the cache of features holds, or clear it", description=CACHE
    )
    kept.set_defaults(command="cache")
    kept.add_argument("--clear", action="store_true", help="drop all features")
    add_cache_gb(kept)
