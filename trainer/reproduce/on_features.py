"""Reproduces tables and figures by methods on the features of a published network."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from trainer import lines as files
from trainer.compare import show
from trainer.compare.command import backbone_of, chosen
from trainer.compare.material import Material, of_dataset
from trainer.compare.measure import Figures, rankings
from trainer.compare.reference import of_floats
from trainer.compare.runs import Wanted, code_digest, run_all
from trainer.config import EVERY_METHOD
from trainer.evaluation.metrics import tie_aware_mean_at
from trainer.methods import BOTH, Method
from trainer.methods.base import CodebookCoder, run
from trainer.methods.deep.gpq import weighted
from trainer.methods.deep.learning import learn
from trainer.report.study import RANKS, precision_of_recall
from trainer.reproduce import draw, grid
from trainer.reproduce.results import save, save_table

LINES, CURVES = "methods.jsonl", "curves.jsonl"
SEED = 0  # of figures


def reproduce(options: argparse.Namespace, dataset: str, folder: Path) -> None:
    """Measures the methods of a table or a figure, then draws it. Raises TrainerError."""
    options.network, options.size = options.network or grid.NETWORK, options.size or grid.SIZE
    methods = chosen(options.methods or [EVERY_METHOD])
    bits = sorted(set(options.bits))
    with backbone_of(options) as backbone:
        about = f"{backbone.name} at {backbone.size} pixels"
        if options.table:
            names = grid.datasets(dataset, options.table - 1)[: options.runs]
            wanted = Wanted(methods, bits, range(options.seeds or 1))
            found: list[Figures] = []
            references: list[float] = []
            for name in names:
                material = of_dataset(folder, name, backbone)
                found += run_all(material, about, wanted, options.out / LINES).figures
                references.append(of_floats(material, options.out))
            _table(found, fmean(references), dataset, options.table, bits, about, options.out)
            return
        material = of_dataset(folder, dataset, backbone)
    path = options.out / f"figure-{options.figure}-{dataset}-methods.png"
    if options.figure == 3:
        title = f"{dataset}, {bits[-1]} bits, {about}"
        save(draw.curves(_curves(material, methods, bits[-1], options.out), title), path)
    elif options.figure == 4:
        by_weights = _weights(material, about, bits[-1], options.out)
        save(draw.weights(by_weights, dataset, bits[-1]), path)
    else:
        of_class = material.query_labels.argmax(axis=1)
        save(draw.maps(_vectors(material, bits[-1]), of_class, material.classes), path)


def _table(
    found: Sequence[Figures],
    reference: float,
    dataset: str,
    table: int,
    bits: Sequence[int],
    about: str,
    out: Path,
) -> None:
    protocol = table - 1
    published = dict(zip(grid.PAPER_BITS, grid.PUBLISHED[dataset, protocol], strict=True))
    known = {"float features": [reference] * len(bits)}
    if set(bits) <= published.keys():
        known["GPQ, as published"] = [published[b] for b in bits]
    title = f"{dataset}, protocol {protocol}, {about}"
    size = f"{found[0].n_query:,} queries over {found[0].n_database:,}"
    heading = f"{dataset}, protocol {protocol}: mAP, {about}, {size}"
    text = f"{heading}\n\n{show.by_length(found, bits, known)}"
    name = f"table-{table}-{dataset}-methods"
    save_table(text, out / f"{name}.md")
    save(show.plot(found, bits, title), out / f"{name}.png")


def _curves(
    material: Material, methods: dict[str, Method], bits: int, out: Path
) -> dict[str, tuple[draw.Floats, draw.Floats]]:
    """Returns the precisions at RECALLS and at RANKS of each method; finished ones are read."""
    path = out / CURVES
    found: dict[str, tuple[draw.Floats, draw.Floats]] = {}
    for name, method in methods.items():
        about = {"digest": material.digest, "code": code_digest(), "method": name, "bits": bits}
        known = [line for line in files.read(path) if about.items() <= line.items()]
        if not known:
            coder = method.learn(material.lesson(bits, SEED))
            of_recall, at_rank = [], []
            for each in rankings(coder, coder.encode(material.database), material, name):
                of_recall.append(precision_of_recall(each.relevant, each.scores))
                at_rank.append([tie_aware_mean_at(each.relevant, each.scores, k) for k in RANKS])
            means = [np.mean(values, axis=0).round(4).tolist() for values in (of_recall, at_rank)]
            known = [{**about, "precision_of_recall": means[0], "precision_at": means[1]}]
            files.write(path, [*files.read(path), *known])
        line = known[0]
        found[name] = np.array(line["precision_of_recall"]), np.array(line["precision_at"])
    return found


def _weights(
    material: Material, about: str, bits: int, out: Path
) -> dict[tuple[float, float], float]:
    """Returns the mAP of GPQ for each pair of its weights."""
    pairs = {f"GPQ {one:g} {other:g}": (one, other) for one, other in grid.PAIRS}
    methods = {name: Method(learn(weighted(*pair)), BOTH) for name, pair in pairs.items()}
    found = run_all(material, about, Wanted(methods, [bits], [SEED]), out / LINES).figures
    return {pairs[each.method]: each.mAP for each in found}


def _vectors(material: Material, bits: int) -> dict[str, draw.Floats]:
    """Returns the given features of the queries, those that GPQ makes of them, and their
    codewords."""
    coder = chosen(["GPQ"])["GPQ"].learn(material.lesson(bits, SEED))
    assert isinstance(coder, CodebookCoder)
    learnt = run(coder.network, material.queries)
    words = coder.codebook.decode(coder.codebook.encode(learnt))
    return {"given features": material.queries, "features of GPQ": learnt, "codewords": words}
