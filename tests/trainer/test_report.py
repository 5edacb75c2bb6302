import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from torch.nn.functional import one_hot

from gpq.engine import engines
from trainer.data.image_sets import RetrievalSet, retrieval_set
from trainer.evaluation.ranking import Ranking
from trainer.report import charts
from trainer.report.advice import advice
from trainer.report.page import in_words, write_report
from trainer.report.study import (
    RECALLS,
    Study,
    _colour_examples,
    _per_class,
    _precision_of_recall,
    _query_result,
    study,
)

CLASSES = ("ant", "_bee $5_$10", "<cow>")


def image_set(n: int = 90, own_rows: bool = True) -> RetrievalSet:
    pixels = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    )
    labels = one_hot(torch.arange(n) % 3)
    rows = torch.arange(n) if own_rows else None
    return RetrievalSet(pixels, labels, pixels, labels, CLASSES, own_rows=rows)


@pytest.fixture(scope="module")
def found(random_model: Path) -> Study:
    return study(engines.load(random_model), image_set())


def test_a_study_of_random_weights_finds_what_chance_finds(found: Study) -> None:
    assert found.chance == pytest.approx(29 / 89)
    assert found.whole.mAP_tie_aware == pytest.approx(found.chance, abs=0.1)
    assert [result.queries for result in found.per_class] == [30] * 3
    assert [r.mAP for r in found.per_class] == sorted(r.mAP for r in found.per_class)
    assert [len(line) for line in found.precisions] == [7]
    assert found.precisions[0][3] == pytest.approx(found.whole.precision_at_10, abs=1e-4)
    assert found.usage.shape == (12, 16)
    assert found.usage.sum(axis=1) == pytest.approx(np.ones(12))
    assert (found.tie_sizes >= 1).all() and found.tie_sizes.max() == found.whole.largest_tie
    assert [example.name for example in found.examples] == list(CLASSES)
    for example in found.examples:
        assert len(example.hits) == 10
        scores = [hit.score for hit in example.hits]
        assert scores == sorted(scores, reverse=True)


def test_precision_of_recall_by_hand() -> None:
    # hits at ranks 1 and 4: precision 1 up to recall ½, ½ above it
    scores = np.array([4, 3, 2, 1], dtype=np.float32)
    found = _precision_of_recall(np.array([True, False, False, True]), scores)
    assert found.tolist() == [1.0 if recall <= 0.5 else 0.5 for recall in RECALLS]
    assert not _precision_of_recall(np.zeros(3, dtype=bool), scores[:3]).any()


def test_precision_of_recall_is_the_same_in_any_order_of_equal_scores() -> None:
    scores = np.array([2, 2, 2, 2, 1], dtype=np.float32)
    orders = ([True, True, False, False, True], [False, False, True, True, True])
    first, second = (_precision_of_recall(np.array(order), scores) for order in orders)
    assert first.tolist() == second.tolist()
    assert first[0] == pytest.approx(0.6)  # the best precision is at the end: 3 of 5


def test_the_queries_shown_of_a_class_differ_in_colour() -> None:
    pixels = torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8) * 6
    labels = one_hot(torch.arange(40) % 4 // 2 * (torch.arange(40) % 2), 2)
    own = RetrievalSet(pixels, labels, pixels, labels, ("a", "b"), own_rows=torch.arange(40))
    rows, right = np.arange(40), np.ones(40, dtype=bool)
    found = [_query_result(Ranking(q, rows, -rows.astype(np.float32), right)) for q in range(40)]
    shown = _colour_examples(found, own)
    assert [example.name for example in shown] == ["a"] * 5
    values = sorted(int(example.pixels[0, 0, 0]) for example in shown)
    assert values[0] < 12 and values[-1] > 216 and min(np.diff(values)) > 30
    assert all(len(example.hits) == 10 for example in shown)


class References(HTMLParser):
    """Collects the references of a page to other files."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and not (value or "").startswith("data:"):
                self.found.append(f"{tag} {name}={value}")
        self.images += tag == "img"


def test_the_report_is_one_file_that_needs_no_others(random_model: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(
        '{"step": 25, "seconds": 1.5, "npair": 2.0}\n'
        '{"step": 25, "seconds": 1.5, "held_out_mAP": 0.4}\n'
    )
    path = write_report(engines.load(random_model), image_set(), "Noise & more", tmp_path)
    page = path.read_text()
    references = References()
    references.feed(page)
    assert references.found == []
    assert references.images == 3 + 5 + 4  # examples; colours; figures, codes, map, curves
    assert "Noise &amp; more" in page and "&lt;cow&gt;" in page and "<cow>" not in page
    assert not re.search(r"<script|@import|url\(", page)


def test_values_of_the_config_are_formatted_for_reading() -> None:
    assert in_words({"mAP": 0.5, "step": 3}) == "mAP 0.5, step 3"
    assert [in_words(value) for value in (None, "", 0, "x")] == ["–", "–", "0", "x"]


def test_a_report_of_very_few_images(random_model: Path, tmp_path: Path) -> None:
    few = image_set(6)
    assert write_report(engines.load(random_model), few, "few", tmp_path).stat().st_size


def test_the_sample_makes_a_report_with_a_separate_database(
    random_model: Path, sample: Path, tmp_path: Path
) -> None:
    model = engines.load(random_model)
    apart = retrieval_set(sample, "folder", model.rules)
    assert (
        "300 queries over 1,000 images"
        in write_report(model, apart, "sample", tmp_path).read_text()
    )


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


def test_hits_after_all_of_a_small_class_do_not_count_as_confusion() -> None:
    right = np.arange(12) < 2
    ranking = Ranking(0, np.arange(12), -np.arange(12, dtype=np.float32), right)
    labels = one_hot(torch.tensor([0] * 2 + [1] * 10))
    pixels = torch.zeros(12, 3, 8, 8, dtype=torch.uint8)
    own = RetrievalSet(pixels[:1], labels[:1], pixels, labels, ("few", "many"))
    (result,) = _per_class([_query_result(ranking)], own)
    assert result.confused is None
    found_late = replace(ranking, relevant=np.roll(right, 1))
    (result,) = _per_class(
        [_query_result(found_late)], replace(own, database_labels=labels.roll(1, 0))
    )
    assert result.confused == ("many", 0.5)


def test_orange_is_the_step_whose_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    plotted: list[tuple[object, ...]] = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda axes, *a, **more: plotted.append((a, more)) or plot(axes, *a, **more)
    )
    log = [{"step": s, "seconds": 1.0, "held_out_mAP": m} for s, m in ((1, 0.9), (2, 0.5))]
    charts.curves(log, shipped=2)
    assert [a for a, more in plotted if more["color"] == charts.SECOND] == [(2, 0.5, "o")]


def test_the_map_has_a_legend_if_there_are_few_classes(found: Study, recwarn) -> None:
    strange = replace(found, classes=("日本", "_bee", "<cow>"))
    _, legend = charts.feature_map(strange)
    assert [name for name, _ in legend] == ["日本", "_bee", "<cow>"]
    assert len({colour for _, colour in legend}) == 3
    assert not [w for w in recwarn if "missing from font" in str(w.message)]
    assert charts.feature_map(replace(found, classes=tuple(map(str, range(21)))))[1] == []
