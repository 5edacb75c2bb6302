"""Draws tables and figures of finished runs, beside the numbers the paper prints."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gpq.engine import engines
from trainer.data.image_sets import retrieval_set
from trainer.evaluation.collection import embed, of_retrieval_set
from trainer.report.study import RANKS, RECALLS, study
from trainer.reproduce.grid import PAPER_BITS, PUBLISHED, WEIGHTS
from trainer.reproduce.runs import Line

METRIC = "mAP_tie_aware"
OURS, THEIRS = "#2457a6", "#8a8a84"


def table(lines: list[Line], dataset: str, protocol: int, bits: Sequence[int]) -> str:
    """Returns a Markdown table; several draws are shown as mean ± standard deviation."""
    published = dict(zip(PAPER_BITS, PUBLISHED[dataset, protocol], strict=True))
    found = {length: [line[METRIC] for line in lines if line["bits"] == length] for length in bits}
    rows = [
        ["", *(f"{length} bits" for length in bits)],
        ["---"] * (len(bits) + 1),
        ["GPQ, as published", *(f"{published[b]:.3f}" if b in published else "" for b in bits)],
        [f"this, {lines[0]['recipe']}", *(_mean(found[length]) for length in bits)],
    ]
    heading = f"{dataset}, protocol {protocol}: mAP, ties taken into account, {_size(lines)}"
    return "\n".join([heading, "", *("| " + " | ".join(row) + " |" for row in rows), ""])


def table_figure(lines: list[Line], dataset: str, protocol: int, bits: Sequence[int]) -> Figure:
    """Draws the same numbers as bars."""
    drawn, axes = _axes(1)
    places = np.arange(len(bits))
    published = dict(zip(PAPER_BITS, PUBLISHED[dataset, protocol], strict=True))
    found = [[line[METRIC] for line in lines if line["bits"] == length] for length in bits]
    means = [np.mean(values) if values else 0 for values in found]
    deviations = [np.std(values) if values else 0 for values in found]
    axes[0].bar(places - 0.2, [published.get(b, 0) for b in bits], 0.4, color=THEIRS, label="paper")
    axes[0].bar(places + 0.2, means, 0.4, yerr=deviations, color=OURS, label=lines[0]["recipe"])
    axes[0].set_xticks(places, [str(b) for b in bits])
    axes[0].set(xlabel="bits", ylabel="mAP", title=f"{dataset}, protocol {protocol}")
    axes[0].legend(frameon=False)
    return drawn


def curves(line: Line, data: Path, out: Path) -> Figure:
    """Draws figure 3: precision by recall, and precision at k."""
    model = engines.load(out / line["folder"])
    collection = of_retrieval_set(retrieval_set(data, line["dataset"], model.rules))
    found = study(embed(model, collection), model.about, collection)
    drawn, axes = _axes(2)
    axes[0].plot(RECALLS, found.precision_of_recall, color=OURS)
    axes[0].set(xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    axes[1].plot(RANKS, found.precisions[-1], color=OURS, marker="o")
    axes[1].set(xlabel="first k", ylabel="precision at k", ylim=(0, 1.02))
    drawn.suptitle(f"{line['dataset']}, {line['bits']} bits")
    return drawn


def weights(lines: list[Line], dataset: str) -> Figure:
    """Draws figure 4: mAP by the weight of L_cls, and by that of the entropy."""
    drawn, axes = _axes(2)
    for axis, name in zip(axes, ("lambda1", "lambda2"), strict=True):
        found = {line[name]: line[METRIC] for line in lines if line[name] is not None}
        axis.plot(range(len(WEIGHTS)), [found[value] for value in WEIGHTS], color=OURS, marker="o")
        axis.set_xticks(range(len(WEIGHTS)), [f"{value:g}" for value in WEIGHTS])
        axis.axhline(PUBLISHED[dataset, 1][-1], color=THEIRS, linestyle="--", label="paper, at 0.1")
        axis.set(xlabel=name, ylabel="mAP")
        axis.legend(frameon=False)
    return drawn


def variants(lines: list[Line], dataset: str, bits: Sequence[int]) -> Figure:
    """Draws figure 5: mAP of GPQ and its variants by code length."""
    drawn, axes = _axes(1)
    for variant in dict.fromkeys(line["variant"] for line in lines):
        found = {line["bits"]: line[METRIC] for line in lines if line["variant"] == variant}
        axes[0].plot(bits, [found[b] for b in bits], marker="o", label=variant.upper())
    axes[0].plot(
        PAPER_BITS, PUBLISHED[dataset, 1], color=THEIRS, linestyle="--", label="GPQ, as published"
    )
    axes[0].set(xlabel="bits", ylabel="mAP", title=f"{dataset}, protocol 1")
    axes[0].set_xticks(list(bits))
    axes[0].legend(frameon=False)
    return drawn


def _axes(columns: int) -> tuple[Figure, list]:  # type: ignore[type-arg]
    drawn = Figure(figsize=(5 * columns, 3.6), layout="constrained")
    return drawn, list(np.ravel(drawn.subplots(1, columns)))


def _mean(values: list[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def _size(lines: list[Line]) -> str:
    first = lines[0]
    draws = len({line["dataset"] for line in lines})
    of_draws = f", {draws} draws" if draws > 1 else ""
    return f"{first['n_query']:,} queries over {first['n_database']:,}{of_draws}"
