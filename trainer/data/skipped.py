"""Reports the files that were skipped."""

import sys
from pathlib import Path

from trainer.errors import writing

SHOWN = 10
NAME = "skipped.txt"  # in the folder of a run


def print_skipped(skipped: list[str]) -> None:
    """Prints how many files were skipped, and the first of them with the reasons."""
    if not skipped:
        return
    print(f"skipped {len(skipped)} files:", file=sys.stderr)
    for line in skipped[:SHOWN]:
        print(f"  {line}", file=sys.stderr)
    if len(skipped) > SHOWN:
        print(f"  … and {len(skipped) - SHOWN} more", file=sys.stderr)


def write_skipped(skipped: list[str], folder: Path) -> None:
    """Writes all skipped files to ``folder``/skipped.txt, unless there are none."""
    if not skipped:
        return
    path = folder / NAME
    with writing(path):
        path.write_text("\n".join(skipped) + "\n", encoding="utf-8", errors="backslashreplace")
    print(f"  the whole list is in {path}", file=sys.stderr)
