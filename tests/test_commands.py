from pathlib import Path

import pytest

from service.migrate import migrate
from service.store import Store
from tests import commands


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["jobs", "models"])
def test_a_command_ends_quietly_where_nobody_reads(
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
