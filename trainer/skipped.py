"""Files that were left out, named."""

import sys

SHOWN = 10


def name_skipped(skipped: list[str]) -> None:
    """Print how many, and the first of them with their reasons."""
    if not skipped:
        return
    print(f"skipped {len(skipped)} files that could not be read:", file=sys.stderr)
    for line in skipped[:SHOWN]:
        print(f"  {line}", file=sys.stderr)
    if len(skipped) > SHOWN:
        print(f"  … and {len(skipped) - SHOWN} more", file=sys.stderr)
