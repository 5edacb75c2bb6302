from pathlib import Path

import pytest

from harness import commands
from harness.images import png
from service.database.migrate import migrate
from service.database.store import Store


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["jobs", "models"])
def test_a_command_ends_quietly_if_its_output_is_closed(
    command: str, unbuffered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    url = f"sqlite:///{tmp_path}/gpq.db"
    store = Store(url)
    migrate(store.database)
    store.close()
    with commands.start(command, "list", folder=tmp_path, database_url=url) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 1


@pytest.mark.parametrize("command", ["export x.jsonl", "backup x.db", "jobs list", "migrate"])
def test_a_command_in_a_wrong_folder_creates_no_database(command: str, tmp_path: Path) -> None:
    done = commands.run(*command.split(), folder=tmp_path)
    assert done.returncode == 1
    assert f"there is no database {tmp_path}/data/gpq.db" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_creates_a_database_prints_its_path(
    random_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_bytes(png(1))
    first, again = (
        commands.run("import", "photos", folder=tmp_path, model=random_model) for _ in range(2)
    )
    assert f"creating the database {tmp_path}/data/gpq.db" in first.stderr
    assert first.returncode == again.returncode == 0
    assert "creating the database" not in again.stderr
