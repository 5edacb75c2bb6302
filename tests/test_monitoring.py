"""Tests that the alert rules and the dashboard ask for metrics that exist."""

import json
import re
import runpy
from pathlib import Path

import pytest

from harness import ROOT
from harness.images import png
from harness.server import Server

MONITORING = ROOT / "docs" / "monitoring"
NAME = re.compile(r"\bgpq_\w+")


@pytest.fixture(scope="module")
def exposed(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Returns the names of all series of a service that has been used."""
    with Server(tmp_path_factory.mktemp("metrics"), model=random_model) as server:
        server.index(png(1))
        server.search(png(1))
        text = server.http.get("/metrics").text
    return {match[0] for line in text.splitlines() if (match := NAME.match(line))}


@pytest.mark.parametrize("file", ["alerts.yml", "dashboard.json"])
def test_every_metric_that_is_asked_for_exists(file: str, exposed: set[str]) -> None:
    asked = set(NAME.findall((MONITORING / file).read_text()))
    assert len(asked) > 5
    assert asked <= exposed


def test_the_dashboard_is_the_one_that_its_program_writes() -> None:
    made = runpy.run_path(str(MONITORING / "dashboard.py"))["dashboard"]()
    assert json.loads((MONITORING / "dashboard.json").read_text()) == made
