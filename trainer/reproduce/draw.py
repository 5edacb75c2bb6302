"""Draws tables and figures of finished runs, beside the numbers the paper prints."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from trainer.lines import Line
from trainer.report.study import RANKS, RECALLS
from trainer.reproduce.grid import PAPER_BITS, PUBLISHED, VARIANTS

METRIC = "mAP_tie_aware"
OURS, THEIRS = "#2457a6", "#8a8a84"
Floats = NDArray[np.floating]


def table(lines: list[Line], dataset: str, protocol: int, bits: Sequence[int]) -> str:
    """Returns a Markdown table; several draws are shown as mean ± standard deviation."""
    published = dict(zip(PAPER_BITS, PUBLISHED[dataset, protocol], strict=True))
    rows = [
        ["", *(f"{length} bits" for length in bits)],
        ["---"] * (len(bits) + 1),
        ["GPQ, as published", *(f"{published[b]:.3f}" if b in published else "" for b in bits)],
    ]
    rows += [
        [f"{name}, {lines[0]['recipe']}", *(_mean(_found(lines, name, length)) for length in bits)]
        for name in _variants(lines)
    ]
    heading = f"{dataset}, protocol {protocol}: mAP, ties taken into account, {_size(lines)}"
    return "\n".join([heading, "", *("| " + " | ".join(row) + " |" for row in rows), ""])


def table_figure(lines: list[Line], dataset: str, protocol: int, bits: Sequence[int]) -> Figure:
    """Draws the same numbers as bars."""
    drawn, (axes,) = _axes(1)
    places = np.arange(len(bits))
    published = dict(zip(PAPER_BITS, PUBLISHED[dataset, protocol], strict=True))
    names = _variants(lines)
    width = 0.8 / (len(names) + 1)
    bars = places - 0.4 + width / 2
    axes.bar(bars, [published.get(b, 0) for b in bits], width, color=THEIRS, label="GPQ, paper")
    for number, name in enumerate(names, 1):
        found = [_found(lines, name, b) for b in bits]
        means, deviations = ([float(f(v or [0])) for v in found] for f in (np.mean, np.std))
        axes.bar(bars + number * width, means, width, yerr=deviations, label=name)
    axes.set_xticks(places, [str(b) for b in bits])
    axes.set(xlabel="bits", ylabel="mAP", title=f"{dataset}, protocol {protocol}")
    axes.legend(frameon=False)
    return drawn


def curves(found: Mapping[str, tuple[Floats, Floats]], title: str) -> Figure:
    """Draws figure 3: precision by recall, and precision at k, of each method.

    ``found``: for each name the precisions at RECALLS and those at RANKS.
    """
    drawn, (left, right) = _axes(2)
    styles = ("-", "--", ":")
    for number, (name, (of_recall, at_rank)) in enumerate(found.items()):
        style = styles[number // 10 % len(styles)]
        left.plot(RECALLS, of_recall, linestyle=style)
        right.plot(RANKS, at_rank, linestyle=style, label=name)
    left.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    right.set(xlabel="first k", ylabel="precision at k", ylim=(0, 1.02), xscale="log")
    if len(found) > 1:
        right.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    drawn.suptitle(title)
    return drawn


def weights(found: Mapping[tuple[float, float], float], dataset: str, bits: int) -> Figure:
    """Draws figure 4: the mAP for each pair of lambda1 and lambda2."""
    drawn, (axes,) = _axes(1)
    first, second = (sorted({pair[n] for pair in found}) for n in (0, 1))
    values = np.array([[found[one, other] for other in second] for one in first])
    picture = axes.imshow(values, cmap="viridis", origin="lower")
    for (row, column), value in np.ndenumerate(values):
        dark = value < (values.min() + values.max()) / 2
        colour = "white" if dark else "black"
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(second)), [f"{value:g}" for value in second])
    axes.set_yticks(range(len(first)), [f"{value:g}" for value in first])
    published = dict(zip(PAPER_BITS, PUBLISHED[dataset, 1], strict=True)).get(bits)
    title = f"{dataset}, {bits} bits: mAP"
    title += f"; the paper has {published} at 0.1 and 0.1" if published else ""
    axes.set(xlabel="lambda2 (entropy)", ylabel="lambda1 (classification)")
    axes.set_title(title, fontsize=9)
    drawn.colorbar(picture)
    return drawn


def maps(
    panels: Mapping[str, Floats], of_class: NDArray[np.int64], classes: Sequence[str]
) -> Figure:
    """Draws figure 5: t-SNE maps of vectors (N,D), coloured by the class (N,) of each.

    ``panels``: vectors by title.
    """
    drawn, axes = _axes(len(panels))
    perplexity = min(30.0, max(1.0, (len(of_class) - 1) / 3))
    for axis, (title, vectors) in zip(axes, panels.items(), strict=True):
        found = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors)
        for number, name in enumerate(classes):
            of_one = found[of_class == number]
            axis.scatter(of_one[:, 0], of_one[:, 1], s=4, color=f"C{number % 10}", label=name)
        axis.set(title=title, xticks=[], yticks=[])
    if len(classes) <= 10:
        axes[-1].legend(
            frameon=False, fontsize=7, markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5)
        )
    return drawn


def _variants(lines: list[Line]) -> list[str]:
    made = {line["variant"] for line in lines}
    return [name for name, variant in VARIANTS.items() if variant in made]


def _found(lines: list[Line], name: str, bits: int) -> list[float]:
    of_variant = (line for line in lines if line["variant"] == VARIANTS[name])
    return [line[METRIC] for line in of_variant if line["bits"] == bits]


def _axes(columns: int) -> tuple[Figure, list[Axes]]:
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
