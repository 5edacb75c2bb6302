"""The command line of the trainer: learns models, measures them, makes others from them."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from gpq.engine import engines
from gpq.errors import GPQError
from gpq.model import artifact
from gpq.model.model import Model
from gpq.pixels.decode import limit_decoding
from gpq.system import device as gpq_device
from gpq.system import memory
from trainer.artifacts import precision
from trainer.artifacts.cut import cut
from trainer.artifacts.export import EXAMPLES
from trainer.artifacts.refit import refit
from trainer.artifacts.upgrade import upgrade, upgrade_database
from trainer.data import datasets, image_sets
from trainer.data.sampling import sample_pixels
from trainer.data.skipped import print_skipped
from trainer.errors import TrainerError, writing
from trainer.evaluation.evaluate import evaluate
from trainer.frozen.cache import GB, FeatureCache
from trainer.frozen.cache import folder as cache_folder
from trainer.parser import parser
from trainer.quantise.command import quantise
from trainer.train import train
from trainer.training import loop


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit status.

    0: done, 1: an error was printed, 2: wrong usage, 130: stopped by a signal.
    """
    words = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(words, argparse.Namespace(words=words))
    limit_decoding()
    memory.return_large_images()
    try:
        COMMANDS[options.command](options)
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


def _compare(options: argparse.Namespace) -> None:
    from trainer.compare.command import compare  # imports matplotlib and faiss, which are slow

    compare(options)


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
        rules = models[precision.FLOAT32].rules
        examples = sample_pixels(options.examples, EXAMPLES, rules) if options.examples else None
        model_id = precision.make(*made, examples=examples, overwrite=options.overwrite)
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


def _cache(options: argparse.Namespace) -> None:
    limit = round(options.cache_gb * GB)
    cache = FeatureCache(cache_folder(), max(1, limit))  # also shown if trainings do not use it
    try:
        if options.clear:
            cache.clear()
        usage = cache.usage()
    finally:
        cache.close()
    print(f"place    {usage.place}")
    print(f"size     {usage.bytes / GB:.3f} GB")
    print(f"limit    {limit / GB:g} GB" if limit else "limit    0 GB: the cache is off")
    print(f"entries  {usage.entries:,}")


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


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": train,
    "quantise": quantise,
    "evaluate": _evaluate,
    "report": _report,
    "cut": _cut,
    "refit": _refit,
    "precision": _precision,
    "upgrade": _upgrade,
    "compare": _compare,
    "reproduce": _reproduce,
    "cache": _cache,
}

if __name__ == "__main__":
    sys.exit(main())
