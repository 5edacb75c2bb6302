"""Tests of the wheel: what it holds, and that a service runs from it alone."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from gpq.scan import native
from harness import ROOT, processes
from harness.images import EXAMPLES
from harness.server import Server

FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
FOLDERS = ("examples", "gpq", "migrations", "models", "service", "tests", "trainer")
BUILD_SDIST = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
pytestmark = pytest.mark.skipif(bool(native.missing()), reason="there was no C++ compiler")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a wheel that is built from an unpacked sdist, outside of the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in FILES:
        shutil.copy2(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-c", BUILD_SDIST], cwd=source, check=True, stdout=subprocess.DEVNULL
    )
    (sdist,) = source.glob("dist/*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    assert not (unpacked / "tests").exists()
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(unpacked)], check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_what_a_service_needs_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    kernel = "_kernel" + sysconfig.get_config_var("EXT_SUFFIX")
    assert {
        "gpq/scan/native/" + kernel,
        "migrations/env.py",
        "models/photos/config.json",
        "models/photos/model.safetensors",
        "models/photos/network.onnx",
        "service/__main__.py",
        "trainer/report/page.html",
    } <= names
    for folder, pattern in (
        ("examples", "*/*.jpg"),
        ("migrations/versions", "*.py"),
        ("models/photos", "*"),
        ("service/http/page", "*"),
    ):
        files = {str(path.relative_to(ROOT)) for path in (ROOT / folder).glob(pattern)}
        assert files
        assert files <= names
    ours = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert ours == {"examples", "gpq", "migrations", "models", "service", "trainer"}
    assert not {name for name in names if name.endswith((".cc", ".h"))}
    models = {name.split("/")[1] for name in names if name.endswith(".safetensors")}
    assert models == {"cifar10", "photos"}


def test_a_service_runs_from_the_wheel_alone(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed"
    options = ["--quiet", "--no-deps", "--no-compile", "--target", str(installed)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    hidden, _ = processes.import_path
    monkeypatch.setattr(processes, "import_path", [hidden, str(installed)])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    image = min(EXAMPLES.glob("hat/*.jpg")).read_bytes()
    with Server(elsewhere) as server:
        assert server.http.get("/readyz").status_code == 200
        assert server.http.get("/").status_code == 200
        assert len(server.http.get("/page/examples").json()) == len(list(EXAMPLES.rglob("*.jpg")))
        assert server.http.get("/stats").json()["engine"] == "native"
        assert server.index(image, ids='["hat"]').status_code == 200
        (hit,) = server.search(image).json()["results"]
        assert hit["id"] == "hat"
        assert server.process is not None
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert f"{installed}/gpq" in mapped
