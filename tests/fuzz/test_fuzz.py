"""Runs every target for some seconds, and every input that once failed."""

from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import targets

SECONDS = 3
TARGETS = ("images", "tar", "jsonl", "csv", "index file", "filters", "cursors", "requests")


def test_the_list_of_targets_is_complete() -> None:
    assert set(TARGETS) == set(targets())


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_handled(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.fuzz.__main__.KEPT", tmp_path)
    tried, slowest = fuzz(name, targets()[name], SECONDS, seed=1)
    assert tried > 20 and slowest < 10
