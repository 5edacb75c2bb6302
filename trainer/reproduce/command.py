"""The command ``reproduce``: makes the runs, then draws the table or the figure."""

import argparse
import sys
from pathlib import Path

from matplotlib.figure import Figure

from trainer.errors import TrainerError
from trainer.reproduce import draw, grid
from trainer.reproduce.runs import run_all


def reproduce(options: argparse.Namespace) -> None:
    """Reproduces a table or a figure. Raises TrainerError if a run fails or no data is given."""
    data = {"cifar10": options.data, "nuswide": options.nuswide}
    given = {name: folder for name, folder in data.items() if folder}
    if not given:
        raise TrainerError("give --data (CIFAR-10), --nuswide, or both")
    extra = ["--device", options.device]
    extra += ["--steps", str(options.steps)] if options.steps else []
    extra += options.more or []
    for dataset in given:
        if options.table:
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


def _figure(
    options: argparse.Namespace, dataset: str, data: dict[str, Path], extra: list[str]
) -> None:
    runs = grid.figure(options.figure, dataset, options.recipe, options.bits)
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
