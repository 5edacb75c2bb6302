from io import BytesIO

import pytest

from trainer.compare import show
from trainer.compare.measure import Figures
from trainer.methods import METHODS


def figures(method: str, bits: int, mAP: float, seed: int = 0) -> Figures:
    return Figures(method, bits, seed, mAP, 0.5, 90, 7, 12.3, 4.5, 6.78, 10, 100)


FOUND = [
    figures("GPQ", 24, 0.6),
    figures("GPQ", 24, 0.7, seed=1),
    figures("PQ", 24, 0.3),
    figures("OPQ", 24, 0.4),
    figures("GPQ", 48, 0.7),
    figures("PQ", 48, 0.35),
]


def test_a_table_by_length_has_means_and_published_figures() -> None:
    text = show.by_length(FOUND, (24, 48), {"GPQ, as published": [0.8, 0.9]})
    assert "| method | learns from | 24 bits | 48 bits |" in text
    assert "| GPQ | labels and unlabelled images | 0.650 ± 0.050 | 0.700 |" in text
    assert "| OPQ | no labels | 0.400 |  |" in text
    assert text.splitlines()[-1] == "| GPQ, as published |  | 0.800 | 0.900 |"
    assert text.index("| PQ |") < text.index("| OPQ |") < text.index("| GPQ |")


def test_a_table_of_costs_has_the_best_first() -> None:
    lines = show.costs(FOUND, 24).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| GPQ", "| OPQ", "| PQ"]
    assert lines[2].endswith("| 0.650 ± 0.050 | 0.500 ± 0.000 | 7 | 3 | 12 | 4.5 | 6.78 |")


def test_the_advice_names_the_best_method_and_the_best_without_labels() -> None:
    assert show.advice(FOUND, 24) == (
        "At 24 bits, use GPQ: its mAP is 0.650, 0.250 above OPQ; without labels, use OPQ (0.400)."
    )
    close = [figures("PQ", 24, 0.301), figures("OPQ", 24, 0.3)]
    assert show.advice(close, 24) == (
        "At 24 bits, use PQ: its mAP is 0.301, 0.001 above OPQ; that is too little to rely on."
    )


def test_names_in_the_plot_do_not_overlap() -> None:
    drawn = show.plot([figures("PQ", 24, 0.5), figures("OPQ", 24, 0.5)], (24,), "title")
    heights = [text.xyann[1] for text in drawn.axes[0].texts]
    assert heights == sorted(heights) and len(set(heights)) == 2


def test_all_methods_can_be_plotted_in_any_order_of_lengths() -> None:
    found = [figures(name, bits, 0.5) for name in METHODS for bits in (24, 48)]
    drawn = show.plot(found, (48, 24), "title")
    drawn.savefig(BytesIO())
    assert len(drawn.axes[0].texts) == len(METHODS)
    assert {text.xy[0] for text in drawn.axes[0].texts} == {48}


def test_labels_of_equal_heights_are_moved_apart() -> None:
    assert show._apart([0.0, 1.0, 1.0], 0.1) == pytest.approx([0.0, 0.95, 1.05])
    assert show._apart([0.0, 0.5, 1.0], 0.1) == [0.0, 0.5, 1.0]
