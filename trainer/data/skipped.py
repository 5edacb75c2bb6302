"""Files that were left out, named."""

import sys
from pathlib import Path

from trainer.errors import writing

SHOWN = 10
NAME = "skipped.txt"  # in a run's folder


def print_skipped(skipped: list[str]) -> None:
    """Tell how many, and of the first the names and reasons."""
    if not skipped:
        return
    print(f"skipped {len(skipped)} files:", file=sys.stderr)
    for line in skipped[:SHOWN]:
        print(f"  {line}", file=sys.stderr)
    if len(skipped) > SHOWN:
        print(f"  … and {len(skipped) - SHOWN} more", file=sys.stderr)


def write_skipped(skipped: list[str], folder: Path) -> None:
    """Write all of them to ``folder``/skipped.txt, where there are any."""
    if not skipped:
        return
    path = folder / NAME
    with writing(path):
        path.write_text("\n".join(skipped) + "\n", encoding="utf-8", errors="backslashreplace")
    print(f"  all of them: {path}", file=sys.stderr)
