"""What to try next where something looks bad."""

from typing import Any

import numpy as np

from trainer.report.study import SHOWN_HITS, Study
from trainer.training.best import MIN_HELD_OUT

LITTLE = 3  # times chance
MIXED_UP = 0.15  # share of the first ten hits
UNUSED = 0.002  # share of pictures below which a codeword does nothing
MANY_UNUSED = 0.4  # share of the codewords
LARGE_TIE = 0.05  # share of the pictures
COLOUR_BLIND = 0.95
FEW_QUERIES = 100
STILL_RISING = 0.9  # share of the run after which the best check came


def advice(found: Study, training: dict[str, Any]) -> list[str]:
    """Sentences, the most important first; empty where nothing looks bad."""
    whole, lines = found.whole, []
    if whole.n_query < FEW_QUERIES:
        lines.append(
            f"Only {whole.n_query} queries: the figures may be off by several points. Label more, "
            "or evaluate on a larger folder."
        )
    if whole.mAP_tie_aware < min(0.5, LITTLE * found.chance):
        lines.append(
            f"mAP {whole.mAP_tie_aware:.3f} is not far above a random order's {found.chance:.3f}: "
            "give more labels, then more --steps; check that the classes can be told apart by eye."
        )
    for result in found.per_class[:3]:
        if result.confused and result.confused[1] > MIXED_UP:
            name, share = result.confused
            lines.append(
                f"“{result.name}” is taken for “{name}” in {share:.0%} of its first hits: "
                "label more of both, above all of pictures that look alike; or make them one class."
            )
    unused = float(np.mean(found.usage < UNUSED))
    if unused > MANY_UNUSED:
        lines.append(
            f"{unused:.0%} of the codewords are hardly used: shorter codes would do as well "
            "(python -m trainer cut), or more --details would use them."
        )
    tie = whole.largest_tie / len(found.tie_sizes)
    if tie > LARGE_TIE and whole.largest_tie > SHOWN_HITS:
        lines.append(
            f"{whole.largest_tie} pictures ({tie:.0%}) share one code and come in order of "
            "storing: more --details, or finer classes, would tell them apart."
        )
    if whole.colour_at_10 is not None and whole.colour_at_10 > COLOUR_BLIND:
        lines.append(
            "Within a class the first hits are hardly nearer to the query's colours than the "
            "rest: where that matters, give --details more codebooks."
        )
    checked = training.get("checked") or {}
    steps = training.get("steps_done")
    chosen = checked.get("pictures", 0) >= MIN_HELD_OUT  # of fewer the last check ships
    if steps and chosen and checked["step"] > STILL_RISING * steps:
        lines.append("The best moment was the end of the run: more --steps may find better.")
    return lines
