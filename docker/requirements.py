"""Prints what the service needs, for pip: ``python requirements.py [EXTRA,...]``.

An image installs it before the code, so that a change of the code does not install it again. Reads
pyproject.toml in the current folder. The extra cuda replaces onnxruntime by its build for GPUs.
"""

import re
import sys
import tomllib
from pathlib import Path


def requirements(project: dict, extras: list[str]) -> list[str]:
    """Returns the requirements of a project with extras. Raises SystemExit for an unknown extra."""
    lines = list(project["dependencies"])
    for extra in extras:
        if extra not in project["optional-dependencies"]:
            raise SystemExit(f"error: pyproject.toml has no extra {extra!r}")
        lines += project["optional-dependencies"][extra]
    if "cuda" in extras:
        lines = [re.sub(r"^onnxruntime\b", "onnxruntime-gpu[cuda,cudnn]", line) for line in lines]
    return lines


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    names = [name for name in "".join(sys.argv[1:]).split(",") if name]
    print("\n".join(requirements(project, names)))
