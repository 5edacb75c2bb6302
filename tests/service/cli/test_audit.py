"""Tests that commands which change or copy something are in the audit log."""

import getpass
import json
from pathlib import Path

from harness import commands
from harness.images import png


def test_commands_are_recorded_with_what_they_were_given(
    random_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(1))
    settings = {"model": random_model, "audit_log": tmp_path / "audit.jsonl"}
    for words, status in (
        (["import", "in"], 0),
        (["models", "list"], 0),
        (["models", "activate", "none"], 1),
        (["backup", "copy.db"], 0),
        (["migrate"], 0),
    ):
        assert commands.run(*words, folder=tmp_path, **settings).returncode == status
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line.pop("who") for line in lines] == [f"{getpass.getuser()} (command)"] * 4
    assert [line.pop("time")[:2] for line in lines] == ["20"] * 4
    assert lines == [
        {"action": "import", "exit": 0, "source": "in"},
        {"action": "models activate", "exit": 1, "id": "none"},
        {"action": "backup", "exit": 0, "file": "copy.db"},
        {"action": "migrate", "exit": 0, "revision": "head"},
    ]
