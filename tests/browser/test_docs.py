"""Pages in a real Chromium."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server import Server

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic",
]  # fmt: skip


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_documentation_shows_without_the_internet(random_model: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    with Server(tmp_path, model=random_model) as server:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--virtual-time-budget=20000"]
        page = subprocess.run(
            [*command, "--dump-dom", f"{server.url}/docs"],
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
    assert "GPQ image search" in page
    assert 'id="operations-pictures-index_index_post"' in page
