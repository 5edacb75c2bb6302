"""The map of the code in docs/architecture.md is true."""

import re
import subprocess
import sys

from harness import ROOT

PAGE = ROOT / "docs" / "architecture.md"


def test_the_diagram_shows_the_imports_of_the_code() -> None:
    command = [sys.executable, "docs/draw_architecture.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_place_that_the_page_names_exists() -> None:
    named = re.findall(r"`((?:service|gpq|trainer|tests|bench|harness)/[\w/.]*)`", PAGE.read_text())
    assert len(named) > 20
    assert [place for place in named if not (ROOT / place).exists()] == []
