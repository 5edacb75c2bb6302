"""Shows the figures of methods: tables, a plot, and a sentence of advice."""

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

import numpy as np
from matplotlib.figure import Figure

from trainer.compare.measure import Figures
from trainer.methods import BOTH, LABELLED, METHODS, UNLABELLED

COLOURS = {UNLABELLED: "#8a8a84", LABELLED: "#2457a6", BOTH: "#b3462c"}
PASSES = 500  # over the labels of a plot
MARKERS = "osD^vP*XhdHp8<>"
CLOSE = 0.01  # a difference of mAP that another seed could turn round

Row = Sequence[str]


def by_length(
    found: Sequence[Figures], bits: Sequence[int], others: Mapping[str, Sequence[float]]
) -> str:
    """Returns a Markdown table: a line for each method, and the mAP at each length.

    Several seeds are shown as mean ± standard deviation. ``others``: further lines, by name.
    """
    head: list[Row] = [["method", "learns from", *(f"{b} bits" for b in bits)]]
    rows: list[Row] = [
        [name, METHODS[name].uses, *(_mean(_maps(found, name, b)) for b in bits)]
        for name in methods_of(found)
    ]
    rows += [[name, "", *(f"{value:.3f}" for value in values)] for name, values in others.items()]
    return _markdown(head + rows)


def costs(found: Sequence[Figures], bits: int) -> str:
    """Returns a Markdown table of all figures at one length, the best mAP first."""
    head = [
        "method", "learns from", "mAP", "precision at 10", "largest tie", "bytes", "s to learn",
        "µs to encode", "ms to score",
    ]  # fmt: skip
    of_length = [each for each in found if each.bits == bits]
    rows = []
    for name in ranking(of_length):
        each = [one for one in of_length if one.method == name]
        rows.append(
            [
                name,
                METHODS[name].uses,
                _mean([one.mAP for one in each]),
                _mean([one.precision_at_10 for one in each]),
                f"{max(one.largest_tie for one in each):,}",
                f"{-(-bits // 8)}",
                f"{fmean(one.learn_s for one in each):.0f}",
                f"{fmean(one.encode_us for one in each):.1f}",
                f"{fmean(one.score_ms for one in each):.2f}",
            ]
        )
    return _markdown([head, *rows])


def plot(found: Sequence[Figures], bits: Sequence[int], title: str) -> Figure:
    """Draws the mAP of each method by code length."""
    drawn = Figure(figsize=(7, 5), layout="constrained")
    axes = drawn.subplots()
    ends: list[tuple[float, int, str, str]] = []
    bits = sorted(bits)
    for number, name in enumerate(methods_of(found)):
        lengths = [b for b in bits if _maps(found, name, b)]
        values = [np.mean(_maps(found, name, b)) for b in lengths]
        colour = COLOURS[METHODS[name].uses]
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(lengths, values, color=colour, marker=marker, markersize=5, linewidth=1.2)
        ends.append((float(values[-1]), lengths[-1], name, colour))
    ends.sort()
    heights = _apart([value for value, *_ in ends])
    for height, (value, place, name, colour) in zip(heights, ends, strict=True):
        axes.annotate(
            name, (place, value), xytext=(24, height), textcoords=("offset points", "data"),
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.4, "shrinkA": 0},
            color=colour, va="center", fontsize=8,
        )  # fmt: skip
    axes.set_xticks(bits)
    axes.set(xlabel="bits", ylabel="mAP", title=title)
    axes.margins(x=0.14)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, *heights), max(high, *heights))
    for uses, colour in COLOURS.items():
        axes.plot([], [], color=colour, label=f"learns from {uses}")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    axes.spines[["top", "right"]].set_visible(False)
    return drawn


def advice(found: Sequence[Figures], bits: int) -> str:
    """Returns a sentence on which method is best at a length, and which one without labels.

    Methods that no service can search by are left out, unless there are no others.
    """
    of_length = [each for each in found if each.bits == bits]
    order = ranking([each for each in of_length if METHODS[each.method].served] or of_length)
    value = {name: fmean(_maps(of_length, name, bits)) for name in order}
    best = order[0]
    words = f"At {bits} bits, use {best}: its mAP is {value[best]:.3f}"
    if len(order) > 1:
        second = order[1]
        apart = value[best] - value[second]
        words += f", {apart:.3f} above {second}"
        error = max(each.mAP_error for each in of_length if each.method == best)
        words += "; that is too little to rely on" if apart < max(CLOSE, 2 * error) else ""
    free = next((name for name in order if METHODS[name].uses == UNLABELLED), None)
    if free is not None and free != best:
        words += f"; without labels, use {free} ({value[free]:.3f})"
    return f"{words}."


def ranking(found: Sequence[Figures]) -> list[str]:
    """Returns the names of the methods, the best mean mAP first."""
    names = methods_of(found)
    means = {name: fmean(each.mAP for each in found if each.method == name) for name in names}
    return sorted(names, key=lambda name: -means[name])


def methods_of(found: Sequence[Figures]) -> list[str]:
    """Returns the names of the methods, in the order of METHODS."""
    return [name for name in METHODS if any(each.method == name for each in found)]


def _maps(found: Sequence[Figures], name: str, bits: int) -> list[float]:
    return [each.mAP for each in found if each.method == name and each.bits == bits]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {pstdev(values):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"


def _apart(heights: Sequence[float], share: float = 0.03) -> list[float]:
    """Moves rising heights apart, by ``share`` of their span, so that labels do not overlap."""
    least = share * max(1e-9, heights[-1] - heights[0])
    placed = list(heights)
    for _ in range(PASSES):
        for n in range(1, len(placed)):
            missing = least - (placed[n] - placed[n - 1])
            if missing > 0:
                placed[n - 1] -= missing / 2
                placed[n] += missing / 2
    return placed


def _markdown(rows: Sequence[Row]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
