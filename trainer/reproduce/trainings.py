"""Reproduces tables and figures by trainings of GPQ on pixels."""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gpq.engine import engines
from trainer.data.image_sets import retrieval_set
from trainer.errors import TrainerError
from trainer.evaluation.collection import Collection, Embedded, embed, of_retrieval_set
from trainer.lines import Line
from trainer.report.study import study
from trainer.reproduce import draw, grid
from trainer.reproduce.results import save, save_table
from trainer.reproduce.runs import run_all


def reproduce(options: argparse.Namespace, dataset: str, data: dict[str, Path]) -> None:
    """Makes the trainings of a table or a figure, then draws it. Raises TrainerError."""
    variants = chosen(options.methods or ["GPQ"], options.recipe)
    extra = ["--device", options.device]
    extra += ["--steps", str(options.steps)] if options.steps else []
    extra += options.more or []
    if options.table:
        protocol = options.table - 1
        runs = grid.table(dataset, protocol, options.recipe, options.bits, variants)
        lines = run_all(runs[: options.runs], data, options.out, extra)
        name = f"table-{options.table}-{dataset}-{options.recipe}"
        save_table(draw.table(lines, dataset, protocol, options.bits), options.out / f"{name}.md")
        drawn = draw.table_figure(lines, dataset, protocol, options.bits)
        save(drawn, options.out / f"{name}.png")
        return
    runs = grid.figure(options.figure, dataset, options.recipe, options.bits)
    lines = run_all(runs, data, options.out, extra)
    drawn = _figure(options.figure, lines, dataset, data[dataset], options.out)
    save(drawn, options.out / f"figure-{options.figure}-{dataset}-{options.recipe}.png")


def chosen(names: list[str], recipe: str) -> list[str]:
    """Returns the variants of GPQ with these names, in any case. Raises TrainerError."""
    known = {name.lower(): name for name in grid.VARIANTS}
    wrong = [name for name in names if name.lower() not in known]
    if wrong:
        raise TrainerError(
            f"--methods: {', '.join(wrong)} cannot be trained on pixels, only "
            f"{', '.join(grid.VARIANTS)}; leave out --recipe to compare all methods on features"
        )
    found = list(dict.fromkeys(known[name.lower()] for name in names))
    if recipe == "modern" and found != ["GPQ"]:
        raise TrainerError("--methods: the recipe modern has no variants; give --recipe paper")
    return found


def _figure(number: int, lines: list[Line], dataset: str, data: Path, out: Path) -> Figure:
    if number == 4:
        found = {(line["lambda1"], line["lambda2"]): line[draw.METRIC] for line in lines}
        return draw.weights(found, dataset, lines[0]["bits"])
    line = lines[-1]
    model = engines.load(out / line["folder"])
    collection = of_retrieval_set(retrieval_set(data, line["dataset"], model.rules))
    embedded = embed(model, collection)
    if number == 5:
        return _maps(embedded, collection)
    found_by_study = study(embedded, model.about, collection)
    of_recall, at_rank = found_by_study.precision_of_recall, found_by_study.precisions[-1]
    name = f"{line['dataset']}, {line['bits']} bits"
    return draw.curves({"GPQ": (of_recall, np.array(at_rank))}, name)


def _maps(embedded: Embedded, collection: Collection) -> Figure:
    codebook = embedded.codebook
    words = codebook.decode(codebook.encode(embedded.queries))
    panels = {"features": embedded.queries, "codewords": words}
    return draw.maps(panels, collection.query_labels.argmax(axis=1), collection.classes)
