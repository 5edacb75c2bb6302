"""Compares the C++ kernel with a plain loop, under sanitizers; see check.cc."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
KERNEL = ROOT / "gpq" / "scan" / "native" / "src"
SHARED = ROOT / "gpq" / "native" / "src"
COMPILER = ["c++", "-std=c++17", "-O1", "-ffp-contract=off", "-fno-sanitize-recover=all"]
SANITIZERS = ["-fsanitize=address,undefined"]


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    empty = tmp_path_factory.mktemp("compiler") / "empty.cc"
    empty.write_text("int main() { return 0; }\n")
    command = [*COMPILER, *SANITIZERS]
    try:
        subprocess.run([*command, empty, "-o", empty.with_suffix("")], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no C++ compiler with sanitizers: {error}")
    return command


@pytest.mark.parametrize("size", ["", "-DGPQ_SMALL"])
def test_the_kernel_finds_the_same_hits_without_errors_of_the_sanitizers(
    size: str, compiler: list[str], tmp_path: Path
) -> None:
    sources = [path for path in KERNEL.glob("*.cc") if path.name != "api.cc"]
    program = tmp_path / "check"
    options = [*([size] if size else []), f"-I{KERNEL}", f"-I{SHARED}", "-o", program]
    check = Path(__file__).parent / "check.cc"
    subprocess.run([*compiler, *options, check, *sources], check=True)
    done = subprocess.run([program, "4"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "portable" in done.stdout
