import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from gpq.engine import engines
from tests.trainer.report.searched import embedded, image_set, random_collection
from trainer.data.image_sets import retrieval_set
from trainer.report.page import in_words, write_page, write_report


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
    assert "Before and after" not in page and "unlabelled" not in page
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
    page = write_report(model, apart, "sample", tmp_path).read_text()
    assert "300 queries, each searched among 1,000 labelled images;" in page
    assert "<dt>Precision at 10<dd>" in page and '<th class="number">precision at 10<' in page


def test_few_right_answers_and_unlabelled_images_are_explained(tmp_path: Path) -> None:
    few = random_collection(30, unknown=12)
    page = write_page(embedded(few, np.arange(30) % 3), {}, few, "few", tmp_path).read_text()
    assert "18 queries, each searched among 17 labelled images and 12 unlabelled ones" in page
    assert "whether it is right is unknown" in page
    assert "5.0 in the mean and 5 in the median of the 18 queries" in page
    assert "<dt>Precision at 10 or R<dd>" in page
    assert '<th class="number">precision at 10<' not in page


def test_before_and_after_are_compared_and_the_page_says_if_training_did_not_help(
    tmp_path: Path,
) -> None:
    few = random_collection(30)
    good, bad = embedded(few, np.arange(30) % 3), embedded(few, np.zeros(30, dtype=np.int64))
    page = write_page(good, {}, few, "few", tmp_path, before=bad).read_text()
    assert "Training helped: mAP 0." in page and "1.000 after" in page
    assert "<h3>Improved most</h3>" in page and "<h3>Got worse most</h3>" not in page
    page = write_page(bad, {}, few, "few", tmp_path, before=good).read_text()
    assert "Training made the searches worse" in page
    assert "<h3>Got worse most</h3>" in page and "<h3>Improved most</h3>" not in page
    assert page.index("Training made") < page.index("<h2>")
    references = References()
    references.feed(page)
    assert references.found == []
    same = write_page(good, {}, few, "few", tmp_path, before=replace(good, model="1")).read_text()
    assert "Training did not measurably help" in same
