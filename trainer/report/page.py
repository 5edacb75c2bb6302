"""Writes the report as a single HTML file that needs no other files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from gpq.model.model import Model
from trainer.config import REPORT
from trainer.data.image_sets import RetrievalSet
from trainer.evaluation.collection import Collection, Embedded, embed, of_retrieval_set
from trainer.evaluation.evaluate import require_searchable
from trainer.report import charts
from trainer.report.advice import FEW_OF_CLASS, advice, advice_on_change, verdict
from trainer.report.comparison import Comparison, Pair, compare
from trainer.report.study import study


def write_report(model: Model, images: RetrievalSet, what: str, folder: Path) -> Path:
    """Searches ``images`` with ``model`` and writes ``folder``/report.html; returns its path.

    ``what``: describes the images.
    """
    collection = of_retrieval_set(images)
    require_searchable(collection)
    return write_page(embed(model, collection), model.about, collection, what, folder)


def write_page(
    embedded: Embedded,
    about: dict[str, Any],
    collection: Collection,
    what: str,
    folder: Path,
    before: Embedded | None = None,
    *,
    seen: bool = False,
) -> Path:
    """Writes ``folder``/report.html; returns its path.

    ``about``: what the artifact says of its training. ``what``: describes the images. ``before``:
    the features of the model that training started from. ``seen``: the queries were trained on. If
    ``folder`` has a log.jsonl, the report shows its curves.
    """
    found = study(embedded, about, collection)
    compared = compare(before, embedded, found.metrics, collection) if before else None
    log = _log(folder / "log.jsonl")
    training: dict[str, Any] = about.get("training") or {}
    feature_map, legend = charts.feature_map(found)
    environment = Environment(
        loader=PackageLoader("trainer.report", "."),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["grouped"] = "{:,}".format
    page = environment.get_template("page.html").render(
        id=embedded.model,
        bits=embedded.codebook.bits,
        what=what,
        found=found,
        collection=collection,
        whole=found.whole,
        median_right=float(np.median(found.right)),
        few_of_class=all(result.queries < FEW_OF_CLASS for result in found.per_class),
        compared=compared,
        verdict=verdict(compared, seen=seen) if compared else None,
        change=charts.comparison(compared) if compared else None,
        kinds=_kinds(compared) if compared else [],
        data=about.get("data") or {},
        training={name: in_words(v) for name, v in training.items() if name != "started_from"},
        started_from=training.get("started_from"),
        advice=[*(advice_on_change(compared) if compared else []), *advice(found, training)],
        curves=charts.curves(log, (training.get("checked") or {}).get("step")) if log else None,
        lengths=charts.lengths(found),
        codes=charts.codes(found),
        feature_map=feature_map,
        legend=legend,
        frames=charts.FRAMES,
        examples=[(example, charts.example(example)) for example in found.examples],
        colours=[(example, charts.example(example)) for example in found.colours],
    )
    path = folder / REPORT
    path.write_text(page, encoding="utf-8")
    return path


def in_words(value: object) -> str:
    """Formats a value of the artifact's config for reading."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_words(inside)}" for name, inside in value.items())
    return "–" if value is None or value == "" else str(value)


def _kinds(compared: Comparison) -> list[tuple[str, list[tuple[Pair, str, str]]]]:
    """Returns the headings of the queries before and after, and for each query its two images."""
    kinds = {
        "Improved most": compared.improved,
        "Typical": compared.typical,
        "Got worse most": compared.worse,
    }
    return [
        (name, [(pair, charts.example(pair.before), charts.example(pair.after)) for pair in pairs])
        for name, pairs in kinds.items()
        if pairs
    ]


def _log(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    # A run that was killed and resumed logs some steps again; the later line counts.
    by_step = {(line["step"], "held_out_mAP" in line): line for line in lines}
    return [by_step[key] for key in sorted(by_step)]
