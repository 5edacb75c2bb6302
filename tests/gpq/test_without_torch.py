"""Searching must not need torch, nor load it where no CUDA device could use it."""

import subprocess
import sys

import pytest

from gpq.system.device import cuda_devices
from harness import ROOT

SEARCH = """
import numpy as np

from gpq import scan
from gpq.model.codebook import Codebook, intra_normalise, pack
from gpq.pixels.preprocess import Preprocess
from gpq.system import device

random = np.random.default_rng(0)
words = intra_normalise(random.standard_normal((16, 36), dtype=np.float32), 3)
codebook = Codebook(words.transpose(1, 0, 2))
features = random.standard_normal((50, 36), dtype=np.float32)
packed, luts = pack(codebook.encode(features)), codebook.lut(features[:4])
auto = scan.build(packed, 3)
assert auto.engine == scan.choose("auto")[0] != "cuda"
rows, scores = auto.search(luts, 10)
expected = scan.build(packed, 3, "reference").search(luts, 10)
assert (rows == expected[0]).all() and (scores == expected[1]).all()
assert Preprocess(8).normalise(np.zeros((1, 3, 8, 8), dtype=np.uint8)).dtype == np.float32
assert device.pick("auto") == "cpu"
assert device.in_parts_that_fit(len, np.zeros(3, dtype=np.uint8)) == [3]
assert not device.out_of_memory(ValueError("any"))
"""


def run(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_codes_are_made_and_searched_without_torch() -> None:
    run("import sys; sys.modules.update(torch=None, triton=None)\n" + SEARCH)


@pytest.mark.skipif(cuda_devices() > 0, reason="there is a CUDA device")
def test_torch_is_not_loaded_without_a_cuda_device() -> None:
    run(SEARCH + "import sys; assert not {'torch', 'triton'} & sys.modules.keys()")
