"""The command ``reproduce``: makes the runs, then draws the table or the figure."""

import argparse
import sys
from pathlib import Path

from matplotlib.figure import Figure

from trainer.compare import show
from trainer.compare.command import backbone_of, chosen
from trainer.compare.material import of_dataset
from trainer.compare.measure import Figures
from trainer.compare.runs import run_all as run_methods
from trainer.config import PAPER
from trainer.errors import TrainerError
from trainer.reproduce import draw, grid
from trainer.reproduce.runs import run_all

METHOD_LINES = "methods.jsonl"


def reproduce(options: argparse.Namespace) -> None:
    """Reproduces a table or a figure. Raises TrainerError if a run fails or no data is given."""
    data = {"cifar10": options.data, "nuswide": options.nuswide}
    given = {name: folder for name, folder in data.items() if folder}
    if not given:
        raise TrainerError("give --data (CIFAR-10), --nuswide, or both")
    if options.table and options.recipe is None and (options.steps or options.more):
        raise TrainerError("--steps and further options are those of a training: give --recipe")
    extra = ["--device", options.device]
    extra += ["--steps", str(options.steps)] if options.steps else []
    extra += options.more or []
    for dataset in given:
        if options.table and options.recipe is None:
            _methods(options, dataset, given[dataset])
        elif options.table:
            _table(options, dataset, given, extra)
        if options.figure:
            _figure(options, dataset, given, extra)


def _table(
    options: argparse.Namespace, dataset: str, data: dict[str, Path], extra: list[str]
) -> None:
    protocol = options.table - 1
    runs = grid.table(dataset, protocol, options.recipe, options.bits)[: options.runs]
    lines = run_all(runs, data, options.out, extra)
    name = f"table-{options.table}-{dataset}-{options.recipe}"
    text = draw.table(lines, dataset, protocol, options.bits)
    (options.out / f"{name}.md").write_text(text)
    print(text)
    _save(draw.table_figure(lines, dataset, protocol, options.bits), options.out / f"{name}.png")


def _methods(options: argparse.Namespace, dataset: str, folder: Path) -> None:
    """Measures every method on the features of a published network."""
    protocol, bits = options.table - 1, sorted(set(options.bits))
    backbone, methods = backbone_of(options), chosen(options.methods)
    about = f"{backbone.name} at {backbone.size} pixels"
    found: list[Figures] = []
    for name in grid.datasets(dataset, protocol)[: options.runs]:
        material = of_dataset(folder, name, backbone)
        seeds = range(options.seeds)
        lines = run_methods(material, about, methods, bits, seeds, options.out / METHOD_LINES)
        found += [line.figures for line in lines]
    published = dict(zip(grid.PAPER_BITS, grid.PUBLISHED[dataset, protocol], strict=True))
    known = {"GPQ": [published[b] for b in bits]} if set(bits) <= published.keys() else {}
    text = f"{dataset}, protocol {protocol}: mAP, {about}\n\n{show.by_length(found, bits, known)}"
    name = f"table-{options.table}-{dataset}-methods"
    (options.out / f"{name}.md").write_text(text)
    print(text)
    title = f"{dataset}, protocol {protocol}, {about}"
    _save(show.plot(found, bits, title), options.out / f"{name}.png")


def _figure(
    options: argparse.Namespace, dataset: str, data: dict[str, Path], extra: list[str]
) -> None:
    runs = grid.figure(options.figure, dataset, options.recipe or PAPER, options.bits)
    lines = run_all(runs, data, options.out, extra)
    if options.figure == 3:
        drawn = draw.curves(lines[-1], data[dataset], options.out)
    elif options.figure == 4:
        drawn = draw.weights(lines, dataset)
    else:
        drawn = draw.variants(lines, dataset, options.bits)
    _save(drawn, options.out / f"figure-{options.figure}-{dataset}.png")


def _save(drawn: Figure, path: Path) -> None:
    drawn.savefig(path, dpi=110)
    print(f"wrote {path}", file=sys.stderr)
