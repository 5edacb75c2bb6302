"""Fixtures for the tests of the report."""

from pathlib import Path

import pytest

from gpq.engine import engines
from tests.trainer.report.searched import random_collection
from trainer.evaluation.collection import embed
from trainer.report.study import Study, study


@pytest.fixture(scope="session")
def found(random_model: Path) -> Study:
    """Returns a study of random weights."""
    model, collection = engines.load(random_model), random_collection()
    return study(embed(model, collection), model.about, collection)
