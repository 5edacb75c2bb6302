"""The kernel alone, with sanitizers, against a plain loop; see check.cc."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
def test_the_kernel_finds_the_same_and_touches_nothing_it_should_not(tmp_path: Path) -> None:
    kernel = ROOT / "gpq" / "scan" / "native" / "src"
    sources = [path for path in kernel.glob("*.cc") if path.name != "api.cc"]
    program = tmp_path / "check"
    options = ["-std=c++17", "-O1", "-ffp-contract=off", "-fno-sanitize-recover=all"]
    sanitizers = ["-fsanitize=address,undefined", f"-I{kernel}", "-o", program]
    check = Path(__file__).parent / "check.cc"
    subprocess.run(["c++", *options, *sanitizers, check, *sources], check=True)
    done = subprocess.run([program, "5"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "portable" in done.stdout
