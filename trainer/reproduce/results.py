"""Writes tables and figures to files."""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from trainer.errors import writing


def save(drawn: Figure, path: Path) -> None:
    """Writes a PNG file and prints where. Raises TrainerError."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.savefig(path, dpi=110)
    print(f"wrote {path}", file=sys.stderr)


def save_table(text: str, path: Path) -> None:
    """Writes a table and prints it. Raises TrainerError."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(text)
