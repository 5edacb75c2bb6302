"""Prints results, and writes them below bench/results."""

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def save(results: dict[str, object], path: Path | None, indent: int = 1) -> None:
    """Prints the results as JSON, and writes them to ``path`` if it is given."""
    text = json.dumps(results, indent=indent)
    print(text)
    if path is not None:
        path.write_text(text + "\n")
