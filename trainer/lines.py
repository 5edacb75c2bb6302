"""Reads and writes files of results, with a JSON object in each line."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpq.system.files import replacing
from trainer.errors import writing

Line = dict[str, Any]


def read(path: Path) -> list[Line]:
    """Returns the complete lines of a file; none if it does not exist.

    A line may be incomplete, as on a full disk; it is printed and left out.
    """
    lines: list[Line] = []
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
            if not isinstance(line, dict):
                raise ValueError("not an object")
            lines.append(line)
        except ValueError:
            print(f"{path}: skipping an incomplete line: {text[:60]}", file=sys.stderr)
    return lines


def write(path: Path, lines: Iterable[Line]) -> None:
    """Replaces a file. Raises TrainerError."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in lines)
