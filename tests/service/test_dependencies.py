"""Checks that every package the service imports is installed with it."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from harness.images import png
from harness.server import Server

ROOT = Path(__file__).parent.parent.parent
OURS = {"gpq", "service", "migrations"}
DATA = {"examples", "models"}  # folders without modules


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
    assert set(settings["tool"]["setuptools"]["packages"]) == existing | DATA


def test_the_service_imports_only_packages_that_are_installed_with_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=!~ ]", line)[0].lower() for line in project["dependencies"]}
    distributions = packages_distributions()
    # torch and what comes with it are needed only on a GPU; torchvision only in training;
    # opentelemetry where traces are wanted, pdqhash where copies are.
    optional = {"torch", "torchvision", "triton", "opentelemetry", "pdqhash"}
    with_fastapi = {"anyio", "starlette"}
    needed = set().union(*map(imported, OURS)) - optional - with_fastapi
    names = {n: {found.lower().replace("_", "-") for found in distributions[n]} for n in needed}
    missing = {n for n in needed if not declared & names[n]}
    assert missing == set()


def test_commands_start_without_importing_fastapi_or_torch() -> None:
    loaded = "import service.cli.main, sys; print(sorted({'fastapi', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def requirements(*arguments: str) -> list[str]:
    """Returns the lines that docker/requirements.py prints. Raises CalledProcessError."""
    command = [sys.executable, "docker/requirements.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout.splitlines()


def test_an_image_gets_the_dependencies_and_those_of_its_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert requirements() == requirements("") == project["dependencies"]
    assert requirements("heic,s3") == [*project["dependencies"], *extras["heic"], *extras["s3"]]
    with pytest.raises(subprocess.CalledProcessError) as failure:
        requirements("heic,none")
    assert failure.value.stderr == "error: pyproject.toml has no extra 'none'\n"


def test_nothing_imports_opentelemetry_unless_traces_are_wanted() -> None:
    script = "import sys, service.app; print('opentelemetry.sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_an_image_for_gpus_has_one_onnxruntime() -> None:
    names = [re.split(r"[\[<>=!~; ]", line)[0] for line in requirements("heic,s3,cuda")]
    assert [name for name in names if name.startswith("onnxruntime")] == ["onnxruntime-gpu"]
    assert "torch" in names
    assert not {"torch", "triton"} & {re.split(r"[<>=]", line)[0] for line in requirements()}


def test_a_process_of_the_service_does_not_load_torch_where_it_is_installed(
    random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, device="cpu") as server:
        assert server.index(png(3)).status_code == 200
        assert server.search(png(3)).status_code == 200
        assert server.process is not None
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "openvino" in mapped
    assert "libtorch" not in mapped
