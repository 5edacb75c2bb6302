from dataclasses import replace

import numpy as np

from trainer.report.advice import advice, advice_on_change, verdict
from trainer.report.comparison import Change, Comparison
from trainer.report.study import Study


def test_advice_names_what_looks_bad_and_is_empty_if_nothing_does(found: Study) -> None:
    lines = "\n".join(advice(found, {}))
    assert "Only 90 queries" in lines
    assert "not far above a random order" in lines
    assert "is mistaken for" in lines
    fine = replace(
        found,
        lengths=[
            replace(found.whole, mAP_tie_aware=0.9, n_query=1000, largest_tie=1, colour_at_10=0.5)
        ],
        per_class=[replace(result, confused=None) for result in found.per_class],
        usage=np.full((12, 16), 1 / 16),
    )
    assert advice(fine, {}) == []
    assert "hardly used" in advice(replace(fine, usage=np.eye(12, 16)), {})[0]
    tied = replace(fine, lengths=[replace(fine.whole, largest_tie=40)])
    assert "share one code" in advice(tied, {})[0]
    blind = replace(fine, lengths=[replace(fine.whole, colour_at_10=1.0)])
    assert "colours" in advice(blind, {})[0]
    rising = {"checked": {"step": 100, "pictures": 100}, "steps_done": 100}
    assert "more --steps" in advice(fine, rising)[0]
    assert advice(fine, {**rising, "checked": {"step": 100, "pictures": 99}}) == []
    few = replace(tied, lengths=[replace(tied.whole, largest_tie=10)])
    assert advice(few, {}) == []


def test_confusions_of_a_class_with_few_queries_may_be_chance(found: Study) -> None:
    assert "is mistaken for" in "".join(advice(found, {}))
    few = replace(found, per_class=[replace(result, queries=4) for result in found.per_class])
    assert "is mistaken for" not in "".join(advice(few, {}))


def change(low: float, high: float, queries: int = 200) -> Comparison:
    middle = (low + high) / 2
    zeros = np.zeros(queries)
    figures = [Change("mAP", 0.5, 0.5 + middle, low, high)]
    return Comparison(48, figures, zeros, zeros, [], [], [])


def test_the_verdict_depends_on_whether_the_interval_contains_none() -> None:
    helped, text = verdict(change(0.01, 0.05), seen=False)
    assert helped and text.startswith("Training helped: mAP 0.500 before and 0.530 after")
    assert "+0.010 and +0.050" in text and "trained on" not in text
    assert "trained on" in verdict(change(0.01, 0.05), seen=True)[1]
    assert verdict(change(-0.05, -0.01), seen=False)[1].startswith("Training made the searches wor")
    helped, text = verdict(change(-0.01, 0.05), seen=False)
    assert not helped and text.startswith("Training did not measurably help")
    assert "from 200 queries" in text


def test_advice_on_a_training_that_did_not_help() -> None:
    assert advice_on_change(change(0.01, 0.05)) == []
    worse, noise, few = (
        " ".join(advice_on_change(found))
        for found in (change(-0.05, -0.01), change(-0.01, 0.05), change(-0.01, 0.05, queries=20))
    )
    assert all("Keep the earlier model" in text for text in (worse, noise, few))
    assert "smaller --learning-rate" in worse and "smaller" not in noise + few
    assert "more --steps" in noise and "more --steps" not in few
