"""Fixtures for the tests of the trainer."""

from collections.abc import Iterator
from pathlib import Path

import faiss
import pytest
import torch

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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Runs faiss and torch on one thread: those of two test processes would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(before)
    faiss.omp_set_num_threads(before)
