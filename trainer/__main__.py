"""python -m trainer: learn a model, measure one, or cut one shorter."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gpq.errors import GPQError
from gpq.model import artifact
from gpq.model.model import Model
from gpq.model.network import DEFAULT_WIDTHS, NETWORKS
from gpq.pixels.decode import limit_decoding
from gpq.system import device as gpq_device
from gpq.system import memory
from trainer.config import BITS, HELD_OUT, LAMBDAS, LEARNING_RATES, LOGITS, RECIPES, STEPS, VARIANTS
from trainer.cut import cut
from trainer.data import datasets, image_sets
from trainer.data.skipped import print_skipped
from trainer.errors import TrainerError, writing
from trainer.evaluation.evaluate import evaluate
from trainer.refit import refit
from trainer.reproduce.grid import PAPER_BITS
from trainer.train import train as run_train
from trainer.training import loop


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 a clear error, 2 wrong usage, 130 stopped by a signal."""
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
    where = gpq_device.pick(options.device)
    model = artifact.load(options.model, where)
    images = _searched(options, model)
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


def _searched(options: argparse.Namespace, model: Model) -> image_sets.RetrievalSet:
    images = image_sets.retrieval_set(options.data, options.dataset, model.rules)
    print_skipped(images.skipped)
    if images.own_rows is not None:
        print(
            f"no queries apart: {len(images.queries):,} labelled pictures are searched for "
            f"among all others of {len(images.database):,}",
            file=sys.stderr,
        )
    return images


def _reproduce(options: argparse.Namespace) -> None:
    from trainer.reproduce.command import reproduce  # slow to import: it draws

    reproduce(options)


def _report(options: argparse.Namespace) -> None:
    from trainer.report.page import write_report  # slow to import: it draws

    model = artifact.load(options.model, gpq_device.pick(options.device))
    images = _searched(options, model)
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


def _table(found: list[dict[str, Any]]) -> str:
    """A line a figure, a column a code length; the model's id, shared by all, below."""
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
        required=True, metavar="train|evaluate|report|cut|refit|reproduce"
    )

    train = commands.add_parser("train", help="learn a model and write an artifact")
    train.set_defaults(command=run_train)
    add = train.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        help="folder of labeled/<class>/* and unlabeled/**, or table",
    )
    add("--out", type=Path, required=True, help="folder for the artifact, checkpoint and log")
    _add_dataset(train)
    add("--bits", type=int, choices=BITS, default=48, help="code length (%(default)s)")
    add(
        "--network",
        choices=sorted(NETWORKS),
        help="(resnet32; from --size 64 on resnet64; paper vgg)",
    )
    add("--width", type=_positive, help=f"channels of the first stage, of {DEFAULT_WIDTHS}")
    add("--size", type=_positive, help="pixels of the square input (32; resnet64 64, others 224)")
    add("--recipe", choices=RECIPES, default="modern", help="(%(default)s)")
    add("--details", type=int, help="last codebooks, for details within classes (M - 8)")
    add("--variant", choices=VARIANTS, default="gpq", help="of --recipe paper (%(default)s)")
    add("--lambda1", type=float, help=f"weight of L_cls, of {LAMBDAS}")
    add("--lambda2", type=float, help="weight of the entropy")
    add("--logits", choices=LOGITS, default="averaged", help="(%(default)s)")
    add("--steps", type=_positive, help=f"optimiser steps {STEPS}")
    add("--batch-labelled", type=_positive, help="labelled pictures a step")
    add("--batch-unlabelled", type=_positive, help="unlabelled pictures a step")
    add("--learning-rate", type=float, help=f"its peak {LEARNING_RATES}")
    add("--device", choices=gpq_device.NAMES, default="auto", help="(%(default)s)")
    add("--seed", type=_seed, default=0, help="(%(default)s)")
    add(
        "--held-out",
        type=float,
        metavar="SHARE",
        help=f"of the labels, to choose the best moment by; 0 for none {HELD_OUT}",
    )
    add(
        "--init",
        type=Path,
        metavar="MODEL_DIR",
        help="start from this artifact's network",
    )
    add(
        "--teacher",
        type=Path,
        metavar="MODEL_DIR",
        help="take the labels of unlabelled pictures from this finished artifact",
    )
    add("--pretrained", action="store_true", help="ImageNet weights of alexnet, resnet18, resnet50")
    add("--compile", default="", metavar="BACKEND", help="of torch.compile, such as inductor")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add("--overwrite", action="store_true", help="replace the run that is in --out")

    searched = argparse.ArgumentParser(add_help=False)
    searched.add_argument("--model", type=Path, required=True, help="artifact folder")
    searched.add_argument(
        "--data",
        type=Path,
        required=True,
        help="train/ (database) and test/ (queries), or labelled pictures, or table",
    )
    _add_dataset(searched)
    searched.add_argument(
        "--device", choices=gpq_device.NAMES, default="auto", help="(%(default)s)"
    )

    measure = commands.add_parser("evaluate", parents=[searched], help="measure an artifact's mAP")
    measure.set_defaults(command=_evaluate)
    add = measure.add_argument
    add("--engine", default="auto", help="scan engine (%(default)s)")
    add("--bits", type=int, nargs="*", default=(), help="also of the first so many bits")
    add("--json", action="store_true", help="one JSON line")
    add("--write", action="store_true", help="keep the figures in the artifact's config.json")

    report = commands.add_parser(
        "report", parents=[searched], help="write report.html about an artifact beside it"
    )
    report.set_defaults(command=_report)
    add = report.add_argument
    add("--title", default="Labelled pictures", help="what --data is, in words (%(default)s)")

    shorter = commands.add_parser("cut", help="make a model of shorter codes: its first bits")
    shorter.set_defaults(command=_cut)
    add = shorter.add_argument
    add("--model", type=Path, required=True, help="artifact folder")
    add("--bits", type=int, required=True, help="code length, of 4 each; 12, 24 and 32 are learnt")
    add("--out", type=Path, required=True, help="folder for the artifact")
    add("--overwrite", action="store_true", help="replace the model that is in --out")

    means = commands.add_parser("refit", help="learn anew what codes stand for, from pictures")
    means.set_defaults(command=_refit)
    add = means.add_argument
    add("--model", type=Path, required=True, help="artifact folder")
    add("--data", type=Path, required=True, help="as of train; its unlabelled pictures are taken")
    _add_dataset(means)
    add("--out", type=Path, required=True, help="folder for the artifact")
    add("--overwrite", action="store_true", help="replace the model that is in --out")

    again = commands.add_parser("reproduce", help="the paper's tables and figures, resumable")
    again.set_defaults(command=_reproduce)
    which = again.add_mutually_exclusive_group(required=True)
    which.add_argument("--table", type=int, choices=(2, 3), help="protocol 1, protocol 2")
    which.add_argument("--figure", type=int, choices=(3, 4, 5), help="curves, weights, variants")
    add = again.add_argument
    add("--data", type=Path, help="CIFAR-10")
    add("--nuswide", type=Path, help="NUS-WIDE")
    add("--out", type=Path, default=Path("runs/reproduce"), help="(%(default)s)")
    add("--recipe", choices=RECIPES, default="paper", help="(%(default)s)")
    add("--bits", type=int, nargs="+", choices=BITS, default=PAPER_BITS, help="(%(default)s)")
    add("--steps", type=_positive, help=f"optimiser steps {STEPS}")
    add("--runs", type=_positive, help="only the first so many of a table")
    add("--device", choices=gpq_device.NAMES, default="auto", help="(%(default)s)")
    add("more", nargs="*", metavar="-- OPTION", help="more options of train")
    return parser


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        choices=(datasets.FOLDER, *datasets.NAMES),
        default=datasets.FOLDER,
        metavar="NAME",
        help="what --data is: folder, or with the paper's protocols " + ", ".join(datasets.NAMES),
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 2**63 - 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
