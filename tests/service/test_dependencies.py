"""Checks that every package the service imports is installed with it."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
OURS = {"gpq", "service", "migrations"}


def imported(package: str) -> set[str]:
    """Returns the third-party packages that a package of ours imports.

    Imports inside a ``try`` statement are optional and don't count.
    """
    names = set()
    for path in (ROOT / package).rglob("*.py"):
        tree = ast.parse(path.read_text())
        optional = {
            id(node)
            for attempt in ast.walk(tree)
            if isinstance(attempt, ast.Try)
            for node in ast.walk(attempt)
        }
        for node in ast.walk(tree):
            if id(node) in optional:
                continue
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - OURS


def test_the_wheel_holds_every_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    existing = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in (*OURS, "trainer")
        for path in (ROOT / package).rglob("*.py")
    }
    assert set(settings["tool"]["setuptools"]["packages"]) == existing


def test_the_service_imports_only_packages_that_are_installed_with_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=!~ ]", line)[0].lower() for line in project["dependencies"]}
    distributions = packages_distributions()
    # torchvision is needed only for artifacts with one of its networks; triton only on a GPU,
    # and torch brings it along.
    optional = {"torchvision", "triton"}
    with_fastapi = {"anyio", "starlette"}
    needed = set().union(*map(imported, OURS)) - optional - with_fastapi
    names = {n: {found.lower().replace("_", "-") for found in distributions[n]} for n in needed}
    missing = {n for n in needed if not declared & names[n]}
    assert missing == set()


def test_commands_start_without_importing_fastapi_or_torch() -> None:
    loaded = "import service.cli.main, sys; print(sorted({'fastapi', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
