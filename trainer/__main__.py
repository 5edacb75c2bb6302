"""The command line of the trainer: learns models, measures them, makes others from them."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpq.engine import engines
from gpq.engine.torch_architectures import DEFAULT_WIDTHS, NETWORKS
from gpq.errors import GPQError
from gpq.model import artifact
from gpq.model.model import Model
from gpq.pixels.decode import limit_decoding
from gpq.system import device as gpq_device
from gpq.system import memory
from trainer.artifacts import precision
from trainer.artifacts.cut import cut
from trainer.artifacts.refit import refit
from trainer.artifacts.upgrade import upgrade, upgrade_database
from trainer.config import (
    BATCHES,
    BITS,
    HELD_OUT,
    LAMBDAS,
    LEARNING_RATES,
    LOGITS,
    RECIPES,
    STEPS,
    VARIANTS,
)
from trainer.data import datasets, image_sets
from trainer.data.skipped import print_skipped
from trainer.errors import TrainerError, writing
from trainer.evaluation.evaluate import evaluate
from trainer.reproduce.grid import PAPER_BITS
from trainer.train import train as run_train
from trainer.training import loop


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit status.

    0: done, 1: an error was printed, 2: wrong usage, 130: stopped by a signal.
    """
    words = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(words, argparse.Namespace(words=words))
    limit_decoding()
    memory.return_large_images()
    try:
        options.command(options)
    except (TrainerError, GPQError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (loop.Stopped, KeyboardInterrupt) as stopped:
        print(str(stopped) or "stopped", file=sys.stderr)
        return 130
    return 0


def _evaluate(options: argparse.Namespace) -> None:
    model = _load(options)
    images = _retrieval_set(options, model)
    found = [m.as_dict() for m in evaluate(model, images, options.engine, options.bits)]
    measured = found[-1]
    if options.write:
        config = artifact.read_config(options.model)
        protocol = datasets.protocol(options.dataset)
        config["about"]["measured"] = {"protocol": protocol, **measured}
        if len(found) > 1:
            config["about"]["measured"]["shorter"] = found[:-1]
        with writing(options.model):
            artifact.write_config(options.model, config)
    if options.json:
        print("\n".join(map(json.dumps, found)))
    else:
        print(_table(found))


def _load(options: argparse.Namespace) -> Model:
    device = str(gpq_device.pick(options.device))
    return engines.load(options.model, engines.Options(precision=options.precision, device=device))


def _retrieval_set(options: argparse.Namespace, model: Model) -> image_sets.RetrievalSet:
    images = image_sets.retrieval_set(options.data, options.dataset, model.rules)
    print_skipped(images.skipped)
    if images.own_rows is not None:
        print(
            f"no separate queries: each of {len(images.queries):,} labelled images is searched "
            f"among all others of {len(images.database):,}",
            file=sys.stderr,
        )
    return images


def _reproduce(options: argparse.Namespace) -> None:
    from trainer.reproduce.command import reproduce  # imports matplotlib, which is slow

    reproduce(options)


def _report(options: argparse.Namespace) -> None:
    from trainer.report.page import write_report  # imports matplotlib, which is slow

    model = _load(options)
    images = _retrieval_set(options, model)
    with writing(options.model):
        path = write_report(model, images, options.title, options.model)
    print(f"wrote {path}", file=sys.stderr)


def _cut(options: argparse.Namespace) -> None:
    model_id = cut(options.model, options.bits, options.out, overwrite=options.overwrite)
    print(f"wrote {options.out}: model {model_id}", file=sys.stderr)


def _refit(options: argparse.Namespace) -> None:
    made = options.model, options.data, options.dataset, options.out
    model_id = refit(*made, overwrite=options.overwrite)
    print(f"wrote {options.out}: model {model_id}", file=sys.stderr)


def _precision(options: argparse.Namespace) -> None:
    if options.out:
        precision.require_makeable(options.model, options.out, overwrite=options.overwrite)
    models = precision.load(options.model)
    images = _retrieval_set(options, models[precision.FLOAT32])
    found = precision.compare(models, images)
    if options.json:
        print(json.dumps({**found.as_dict(), "model": models[precision.FLOAT32].id}))
    else:
        print(precision.table(found))
    if options.out:
        made = options.model, found, datasets.protocol(options.dataset), options.out
        model_id = precision.make(*made, overwrite=options.overwrite)
        print(f"wrote {options.out}: model {model_id}", file=sys.stderr)


def _upgrade(options: argparse.Namespace) -> None:
    if not options.folder and not options.database:
        raise TrainerError("there is nothing to upgrade: name the folder of a model, or --database")
    for folder in options.folder:
        done = upgrade(folder)
        print(f"{folder}: {'upgraded' if done else 'has a graph already'}", file=sys.stderr)
    if options.database:
        for id in upgrade_database(options.database):
            print(f"{id}: upgraded", file=sys.stderr)


def _table(found: list[dict[str, Any]]) -> str:
    """Formats a line per figure and a column per code length, with the model's id at the end."""
    names = [name for name in found[0] if name != "model"]
    width = max(map(len, names))
    lines = [
        f"{name:<{width}}  " + "".join(f"{_cell(m[name]):>10}" for m in found) for name in names
    ]
    return "\n".join([*lines, f"{'model':<{width}}  {found[0]['model']}"])


def _cell(value: object) -> str:
    return "–" if value is None else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    commands = parser.add_subparsers(
        required=True, metavar="train|evaluate|report|cut|refit|precision|upgrade|reproduce"
    )

    labelled, unlabelled = ({name: BATCHES[name][kind] for name in RECIPES} for kind in (0, 1))
    lambda1, lambda2 = ({name: LAMBDAS[name][which] for name in RECIPES} for which in (0, 1))
    train = commands.add_parser("train", help="learn a model and write its artifact")
    train.set_defaults(command=run_train)
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
        help=f"{', '.join(sorted(NETWORKS))} (paper: vgg; modern: resnet32, or resnet64 from "
        "--size 64 on), or onnx:FILE for a frozen image encoder, such as CLIP's",
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
        help="pixels a side of the square input (32; resnet64: 64; large networks: 224)",
    )
    add("--recipe", choices=RECIPES, default="modern", help="how to train (%(default)s)")
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
        "--logits",
        choices=LOGITS,
        default="averaged",
        help="logits of the classifier (%(default)s)",
    )
    add("--steps", type=_positive, help=f"optimiser steps {_defaults(STEPS)}")
    add("--batch-labelled", type=_positive, help=f"labelled images per step {_defaults(labelled)}")
    add(
        "--batch-unlabelled",
        type=_positive,
        help=f"unlabelled images per step {_defaults(unlabelled)}",
    )
    add("--learning-rate", type=float, help=f"peak learning rate {_defaults(LEARNING_RATES)}")
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
        help="artifact whose network the training starts from",
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
        help="start from ImageNet weights (alexnet, resnet18, resnet50)",
    )
    add(
        "--compile",
        default="",
        metavar="BACKEND",
        help="back end of torch.compile, such as inductor",
    )
    add("--resume", action="store_true", help="continue from the checkpoint in --out")
    add("--overwrite", action="store_true", help="replace the run in --out")

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
    measure.set_defaults(command=_evaluate)
    add = measure.add_argument
    add("--engine", default="auto", help="scan engine (%(default)s)")
    add("--bits", type=int, nargs="*", default=(), help="also measure codes cut to these lengths")
    add("--json", action="store_true", help="print a JSON line for each code length")
    add("--write", action="store_true", help="write the figures into the artifact's config.json")

    report = commands.add_parser(
        "report", parents=[searched, computed], help="write report.html into an artifact's folder"
    )
    report.set_defaults(command=_report)
    add = report.add_argument
    add(
        "--title",
        default="Labelled images",
        help="description of --data in the report (%(default)s)",
    )

    shorter = commands.add_parser(
        "cut", help="make a model whose codes are the first bits of another's"
    )
    shorter.set_defaults(command=_cut)
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
    means.set_defaults(command=_refit)
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
    less.set_defaults(command=_precision)
    add = less.add_argument
    add("--json", action="store_true", help="print the figures as JSON")
    add("--out", type=Path, help="folder for a model that computes in bfloat16, if it costs little")
    add("--overwrite", action="store_true", help="replace the model in --out")

    older = commands.add_parser(
        "upgrade", help="add the graph of the network to models of earlier versions"
    )
    older.set_defaults(command=_upgrade)
    add = older.add_argument
    add("folder", type=Path, nargs="*", metavar="DIR", help="artifact folder")
    add("--database", metavar="URL", help="also upgrade the models of a service's database")

    again = commands.add_parser(
        "reproduce", help="reproduce the tables and figures of the paper; can be continued"
    )
    again.set_defaults(command=_reproduce)
    which = again.add_mutually_exclusive_group(required=True)
    which.add_argument("--table", type=int, choices=(2, 3), help="2: protocol 1; 3: protocol 2")
    which.add_argument(
        "--figure", type=int, choices=(3, 4, 5), help="3: curves; 4: loss weights; 5: variants"
    )
    add = again.add_argument
    add("--data", type=Path, help="folder of CIFAR-10")
    add("--nuswide", type=Path, help="folder of NUS-WIDE")
    add("--out", type=Path, default=Path("runs/reproduce"), help="folder for results (%(default)s)")
    add("--recipe", choices=RECIPES, default="paper", help="how to train (%(default)s)")
    add(
        "--bits",
        type=int,
        nargs="+",
        choices=BITS,
        default=PAPER_BITS,
        help="code lengths (%(default)s)",
    )
    add("--steps", type=_positive, help=f"optimiser steps {_defaults(STEPS)}")
    add("--runs", type=_positive, help="make only this number of a table's runs")
    add("--device", choices=gpq_device.NAMES, default="auto", help="where to compute (%(default)s)")
    add("more", nargs="*", metavar="-- OPTION", help="further options of train")
    return parser


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


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not an integer from 0 to 2**63 - 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
