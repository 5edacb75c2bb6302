from pathlib import Path

import pytest

from gpq.errors import ArtifactError
from harness import commands
from service.database.migrate import migrate
from service.database.store import Store
from service.models import artifacts


def test_a_relative_folder_is_sought_in_the_current_folder_then_in_the_program_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, program = tmp_path / "here", tmp_path / "program"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(artifacts, "ROOT", program)
    (program / "models" / "mine").mkdir(parents=True)
    assert artifacts.find(Path("models/mine")) == program / "models" / "mine"
    (here / "models" / "mine").mkdir(parents=True)
    assert artifacts.find(Path("models/mine")).resolve() == here / "models" / "mine"
    assert artifacts.find(tmp_path / "none") == tmp_path / "none"
    with pytest.raises(ArtifactError) as caught:
        artifacts.find(Path("models/yours"))
    for place in (here, program):
        assert str(place / "models" / "yours") in str(caught.value)


def test_a_command_run_in_another_folder_finds_a_shipped_model(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/gpq.db"
    store = Store(url)
    migrate(store.database)
    store.close()
    place = {"folder": tmp_path, "database_url": url, "image_store": "none"}
    assert "added " in commands.service("models", "add", "models/cifar10", **place)
