"""Draws the charts and the examples of the report, as data URIs."""

import base64
import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from trainer.report.comparison import Comparison
from trainer.report.examples import Example
from trainer.report.study import RANKS, RECALLS, UNKNOWN, Study

matplotlib.rcParams.update(
    {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.fonttype": "none",
        "text.parse_math": False,
    }
)
ACCENT, SECOND, PALE = "#2457a6", "#c8502d", "#a9bfe0"
GREEN, RED, GREY = "#22a054", "#d64242", "#a3a39c"
FRAMES = {True: GREEN, False: RED, None: GREY}  # of hits that are right, wrong, of unknown class
SIDE, FRAME, GAP = 72, 4, 6  # pixels: side of an example's image, frame, space between images
TIE_GROUPS = ((1, 1), (2, 10), (11, 100), (101, 1000), (1001, None))
NAMED_CLASSES = 20  # with more classes the map has no legend
Legend = list[tuple[str, str]]


def curves(log: list[dict[str, Any]], shipped: int | None) -> str:
    """Draws the losses of a training and the mAP of its held-out images by step.

    ``shipped``: the step whose weights the artifact has.
    """
    steps = [line for line in log if "held_out_mAP" not in line]
    names = [name for name in (steps[0] if steps else {}) if name not in ("step", "seconds")]
    checks = [line for line in log if "held_out_mAP" in line]
    figure, axes = _axes(1 + bool(checks), width=10, height=3.4)
    for name in names:
        found = [step[name] for step in steps]
        alone = "o" if len(steps) == 1 else None  # a line of one point is invisible
        axes[0].plot([s["step"] for s in steps], found, marker=alone, label=name)
    axes[0].set(xlabel="step", title="losses")
    if names:
        axes[0].legend(frameon=False, fontsize=9)
    if checks:
        found = [c["held_out_mAP"] for c in checks]
        axes[1].plot([c["step"] for c in checks], found, marker="o", color=ACCENT)
        for check in checks:
            if check["step"] == shipped:
                axes[1].plot(check["step"], check["held_out_mAP"], "o", color=SECOND, markersize=9)
        axes[1].set(xlabel="step", title="mAP of the held-out images; orange: the weights kept")
        step_minutes = checks[-1]["seconds"] / checks[-1]["step"] / 60
        if step_minutes and len(checks) > 1:
            minutes = axes[1].secondary_xaxis(
                "top",
                functions=(lambda n: n * step_minutes, lambda time: time / step_minutes),
            )
            minutes.set_xlabel("minutes of training")
    return _svg(figure)


def lengths(found: Study) -> str:
    """Draws mAP by code length, precision by rank for each length, and precision by recall.

    A dotted line is the highest precision that is possible, where that is below 1.
    """
    figure, axes = _axes(3, width=11, height=3.2)
    bits = [measured.bits for measured in found.lengths]
    axes[0].bar([str(b) for b in bits], [m.mAP_tie_aware for m in found.lengths], color=ACCENT)
    axes[0].set(xlabel="bits", title="mAP by code length", ylim=(0, 1))
    shades = matplotlib.colormaps["Blues"](np.linspace(0.45, 1, len(bits)))
    for length, precisions, shade in zip(bits, found.precisions, shades, strict=True):
        axes[1].plot(RANKS, precisions, marker="o", markersize=4, color=shade, label=str(length))
    if min(found.attainable) < 1:
        axes[1].plot(RANKS, found.attainable, ":", color=GREY, label="possible")
    if len(axes[1].lines) > 1:
        axes[1].legend(frameon=False, title="bits" if len(bits) > 1 else None, loc="best")
    axes[1].set(xlabel="first k hits", title="precision at k", xscale="log", ylim=(0, 1.02))
    axes[1].set_xticks(RANKS, [str(k) for k in RANKS])
    axes[1].minorticks_off()
    axes[2].plot(RECALLS, found.precision_of_recall, color=ACCENT)
    axes[2].set(xlabel="recall", title="precision by recall", xlim=(0, 1), ylim=(0, 1.02))
    return _svg(figure)


def comparison(found: Comparison) -> str:
    """Draws the figures before and after, and the average precision of each query."""
    figure, axes = _axes(2, width=10, height=3.8)
    places = np.arange(len(found.changes))
    for shift, colour, name in ((-0.2, PALE, "before"), (0.2, ACCENT, "after")):
        heights = [getattr(change, name) for change in found.changes]
        bars = axes[0].bar(places + shift, heights, width=0.38, color=colour, label=name)
        axes[0].bar_label(bars, fmt="%.3f", padding=2, fontsize=9)
    axes[0].set_xticks(places, [change.name for change in found.changes])
    axes[0].set(title="figures, higher is better", ylim=(0, 1.2), yticks=np.linspace(0, 1, 6))
    axes[0].legend(frameon=False, ncols=2, loc="upper left")
    axes[1].plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for chosen, colour in (
        (found.after >= found.before, ACCENT),
        (found.after < found.before, SECOND),
    ):
        axes[1].scatter(found.before[chosen], found.after[chosen], s=14, alpha=0.5, color=colour)
    axes[1].set(
        title="average precision of each query; orange: worse",
        xlabel="before",
        ylabel="after",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    return _svg(figure)


def codes(found: Study) -> str:
    """Draws how often each codeword is used, and how many images share a code."""
    figure, axes = _axes(2, width=10, height=3.6)
    shown = axes[0].imshow(found.usage * 100, cmap="Blues", aspect="auto", vmin=0)
    axes[0].set(xlabel="codeword", ylabel="codebook", title="images with a codeword, %")
    axes[0].set_xticks(range(0, 16, 3))
    figure.colorbar(shown, ax=axes[0])
    total = len(found.tie_sizes)
    shares, names = [], []
    for low, high in TIE_GROUPS:
        inside = (found.tie_sizes >= low) & (found.tie_sizes <= (high or total))
        shares.append(100 * inside.sum() / total)
        names.append("alone" if high == 1 else f"{low}–{high}" if high else f"over {low - 1}")
    axes[1].bar(names, shares, color=ACCENT)
    axes[1].set(title="images by how many have the same code, %", ylim=(0, 100))
    return _svg(figure)


def feature_map(found: Study) -> tuple[str, Legend]:
    """Draws a t-SNE map of the features, coloured by class; returns it with its legend.

    The page writes the legend, because matplotlib's font lacks letters of some languages. The
    legend leaves out the classes if there are more than NAMED_CLASSES.
    """
    figure, (axes,) = _axes(1, width=8.5, height=6)
    count = 10 if len(found.classes) <= 10 else 20
    shades = matplotlib.colormaps[f"tab{count}"](np.arange(len(found.classes)) % count)
    palette = [to_hex(colour) for colour in shades]
    colour_of = [GREY if c == UNKNOWN else palette[c] for c in found.of_class]
    sizes = np.where(found.of_class == UNKNOWN, 3, 12)
    axes.scatter(found.positions[:, 0], found.positions[:, 1], s=sizes, color=colour_of)
    axes.axis("off")
    legend = list(zip(found.classes, palette, strict=True))
    legend = legend if len(legend) <= NAMED_CLASSES else []
    if (found.of_class == UNKNOWN).any():
        legend.append(("class unknown", GREY))
    return _png(figure), legend


def example(shown: Example) -> str:
    """Draws the query and its hits in a line; FRAMES tells which are right."""
    cell = SIDE + 2 * FRAME + GAP
    line = Image.new("RGB", (cell * (len(shown.hits) + 1) + 2 * GAP, SIDE + 2 * FRAME), "white")
    line.paste(_enlarged(shown.pixels), (FRAME, FRAME))
    for column, hit in enumerate(shown.hits, start=1):
        left = column * cell + 2 * GAP
        line.paste(FRAMES[hit.right], (left, 0, left + SIDE + 2 * FRAME, SIDE + 2 * FRAME))
        line.paste(_enlarged(hit.pixels), (left + FRAME, FRAME))
    buffer = io.BytesIO()
    line.save(buffer, "JPEG", quality=88)
    return _uri(buffer.getvalue(), "image/jpeg")


def _enlarged(pixels: np.ndarray[Any, Any]) -> Image.Image:
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _axes(columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(np.ravel(figure.subplots(1, columns)))


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _uri(buffer.getvalue(), "image/svg+xml")


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return _uri(buffer.getvalue(), "image/png")


def _uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
