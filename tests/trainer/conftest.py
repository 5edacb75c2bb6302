"""Fixtures for the tests of the trainer."""

from pathlib import Path

import pytest

from harness.trained import make_trained_artifact
from trainer import train as train_module
from trainer.frozen.cache import PLACE


@pytest.fixture(autouse=True)
def feature_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Returns the folder of an empty cache of features, which no other test uses."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(PLACE, str(folder))
    return folder


@pytest.fixture(scope="session")
def trained_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of an artifact with random weights, whose network torch has."""
    folder = tmp_path_factory.mktemp("trained-model")
    make_trained_artifact(folder)
    return folder


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the report out, which takes longer than all else; test_encoder.py makes one."""
    monkeypatch.setattr(train_module, "_report", lambda *_: None)
