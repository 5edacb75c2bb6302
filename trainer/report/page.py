"""Writes the report as a single HTML file that needs no other files."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from gpq.model.model import Model
from trainer.config import REPORT
from trainer.data.image_sets import RetrievalSet
from trainer.report import charts
from trainer.report.advice import advice
from trainer.report.study import study


def write_report(model: Model, images: RetrievalSet, what: str, folder: Path) -> Path:
    """Searches ``images`` with ``model`` and writes ``folder``/report.html; returns its path.

    ``what``: describes the images. If ``folder`` has a log.jsonl, the report shows its curves.
    """
    found = study(model, images)
    log = _log(folder / "log.jsonl")
    training: dict[str, Any] = model.about.get("training") or {}
    feature_map, legend = charts.feature_map(found)
    environment = Environment(
        loader=PackageLoader("trainer.report", "."),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(
        model=model,
        what=what,
        found=found,
        whole=found.whole,
        data=model.about.get("data") or {},
        training={name: in_words(v) for name, v in training.items() if name != "started_from"},
        started_from=training.get("started_from"),
        advice=advice(found, training),
        curves=charts.curves(log, (training.get("checked") or {}).get("step")) if log else None,
        lengths=charts.lengths(found),
        codes=charts.codes(found),
        feature_map=feature_map,
        legend=legend,
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


def _log(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    # A run that was killed and resumed logs some steps again; the later line counts.
    by_step = {(line["step"], "held_out_mAP" in line): line for line in lines}
    return [by_step[key] for key in sorted(by_step)]
