"""Suggests what to try next if a figure of the report looks bad."""

from typing import Any

import numpy as np

from trainer.report.comparison import Comparison
from trainer.report.examples import SHOWN_HITS
from trainer.report.study import Study
from trainer.training.best import MIN_HELD_OUT

NEAR_CHANCE = 3  # mAP up to this multiple of chance is near a random order
CONFUSED = 0.15  # share of the first hits that are of one wrong class
UNUSED = 0.002  # share of images below which a codeword counts as unused
MANY_UNUSED = 0.4  # share of unused codewords
LARGE_TIE = 0.05  # share of images with the same code
COLOUR_BLIND = 0.95  # colour_at_10 above which the order hardly depends on colour
FEW_QUERIES = 100
FEW_OF_CLASS = 5  # queries of a class, with which its confusions may be chance
STILL_RISING = 0.9  # a best check after this share of the run is at its end


def advice(found: Study, training: dict[str, Any]) -> list[str]:
    """Returns sentences of advice, the most important first; none if nothing looks bad."""
    whole, lines = found.whole, []
    if whole.n_query < FEW_QUERIES:
        lines.append(
            f"Only {whole.n_query} queries: the figures may be off by several points, and a small "
            "change is not told from chance. Label more, or evaluate on a larger folder."
        )
    if whole.mAP_tie_aware < min(0.5, NEAR_CHANCE * found.chance):
        lines.append(
            f"mAP {whole.mAP_tie_aware:.3f} is not far above a random order's {found.chance:.3f}: "
            "give more labels, then more --steps; check that a person can tell the classes apart."
        )
    for result in [r for r in found.per_class if r.queries >= FEW_OF_CLASS][:3]:
        if result.confused and result.confused[1] > CONFUSED:
            name, share = result.confused
            lines.append(
                f"“{result.name}” is mistaken for “{name}” in {share:.0%} of its first hits: label "
                "more of both, above all images that look alike; or make them one class."
            )
    unused = float(np.mean(found.usage < UNUSED))
    if unused > MANY_UNUSED:
        lines.append(
            f"{unused:.0%} of the codewords are hardly used: shorter codes would find as much "
            "(fewer --bits), or more --details would use the codewords (--recipe modern)."
        )
    tie = whole.largest_tie / len(found.tie_sizes)
    if tie > LARGE_TIE and whole.largest_tie > SHOWN_HITS:
        lines.append(
            f"{whole.largest_tie} images ({tie:.0%}) share one code and come in the order of "
            "storing: more --bits, or finer classes, would distinguish them."
        )
    if whole.colour_at_10 is not None and whole.colour_at_10 > COLOUR_BLIND:
        lines.append(
            "Within a class the first hits are hardly nearer to the query's colours than the "
            "rest: if that matters to you, give --recipe modern and more --details."
        )
    checked = training.get("checked") or {}
    steps = training.get("steps_done")
    chosen = checked.get("pictures", 0) >= MIN_HELD_OUT  # with fewer the last check counts
    if steps and chosen and checked["step"] > STILL_RISING * steps:
        lines.append("The best check was at the end of the run: more --steps may improve it.")
    return lines


def verdict(found: Comparison, *, seen: bool) -> tuple[bool, str]:
    """Returns whether training helped, and a sentence that says so.

    ``seen``: the queries were trained on, so that an improvement proves little.
    """
    mAP, count = found.mAP, len(found.after)
    figures = (
        f"mAP {mAP.before:.3f} before and {mAP.after:.3f} after; the change is between "
        f"{mAP.low:+.3f} and {mAP.high:+.3f} with 95 % confidence"
    )
    if mAP.low > 0:
        doubt = " But the queries were trained on, so it may not hold for others." if seen else ""
        return True, f"Training helped: {figures}.{doubt}"
    if mAP.high < 0:
        return False, f"Training made the searches worse: {figures}."
    return False, f"Training did not measurably help: {figures}, from {count} queries."


def advice_on_change(found: Comparison) -> list[str]:
    """Returns sentences of advice on a training that did not help; none if it helped."""
    mAP = found.mAP
    if mAP.low > 0:
        return []
    lines = ["Keep the earlier model for now: its codes are stored, and it finds at least as much."]
    if mAP.high < 0:
        lines.append(
            "A smaller --learning-rate, or fewer --steps, keeps more of what the earlier model "
            "knew; more labels give it more to learn."
        )
    elif len(found.after) >= FEW_QUERIES:  # else ``advice`` asks for more queries
        lines.append("More labels, above all of classes that are confused, or more --steps.")
    return lines
