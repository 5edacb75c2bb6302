"""Hides torch from every process that the end-to-end tests start.

The service must work where torch is not installed.
"""

from collections.abc import Iterator

import pytest

from harness import processes

HIDE_TORCH = """
import sys
for name in ("torch", "torchvision", "triton", "onnxscript"):
    sys.modules[name] = None
"""


@pytest.fixture(scope="module", autouse=True)
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Puts a folder first on the import path from which Python hides torch when it starts."""
    folder = tmp_path_factory.mktemp("without-torch")
    (folder / "sitecustomize.py").write_text(HIDE_TORCH)
    processes.import_path.insert(0, str(folder))
    yield str(folder)
    processes.import_path.remove(str(folder))
