"""Tests the scan on a GPU, at sizes for which Triton's interpreter is too slow."""

import numpy as np
import pytest
import torch

from gpq import scan
from gpq.errors import DeviceFull
from gpq.scan.cuda.scanner import CudaScanner
from gpq.scan.reference import ReferenceScanner
from tests.scanners import assert_same, codes_like, luts_like
from tests.waiting import until

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("kind", ["uniform", "clustered", "one"])
@pytest.mark.parametrize("n", [1, 1025, 300_000, 1_000_000])
def test_rows_and_scores_are_the_references(kind: str, n: int) -> None:
    random = np.random.default_rng(n)
    packed = codes_like(kind, n, 12, random)
    scanner, reference = CudaScanner(packed, 12, "cuda"), ReferenceScanner(packed, 12)
    gone = random.integers(0, n, n // 10)
    for each in (scanner, reference):
        each.remove(gone)
        each.add(packed[: n // 7])
    for luts in ("normal", "levels"):
        for Q in (1, 3, 4, 17):
            assert_same(scanner, reference, luts_like(luts, Q, 12, random), 100)
    tables = luts_like("levels", 5, 12, random)
    for share in (0.5, 0.001):
        assert_same(scanner, reference, tables, 10, random.random(n) < share)
    rows, scores = reference.search(tables[:1], 500)
    last = min(499, int((rows >= 0).sum()) - 1)
    if last >= 0:
        after = (float(scores[0, last]), int(rows[0, last]))
        assert_same(scanner, reference, tables, 50, None, after)


@pytest.mark.parametrize("M", [*range(1, 17), 31, 64])
def test_codes_of_any_length(M: int) -> None:
    random = np.random.default_rng(M)
    packed = codes_like("clustered", 50_000, M, random)
    scanner, reference = CudaScanner(packed, M, "cuda"), ReferenceScanner(packed, M)
    for Q in (1, 40):
        assert_same(scanner, reference, luts_like("normal", Q, M, random), 10)


def test_many_queries_and_hits_at_once() -> None:
    random = np.random.default_rng(0)
    packed = codes_like("uniform", 200_000, 12, random)
    scanner, reference = CudaScanner(packed, 12, "cuda"), ReferenceScanner(packed, 12)
    assert_same(scanner, reference, luts_like("normal", 300, 12, random), 3000)


def test_auto_uses_the_gpu_and_leaves_it_while_it_is_full() -> None:
    packed = np.zeros((1000, 6), dtype=np.uint8)
    assert scan.choose("auto")[0] == "cuda"
    torch.cuda.empty_cache()
    used = torch.cuda.memory_reserved() + (64 << 20)
    torch.cuda.set_per_process_memory_fraction(used / torch.cuda.mem_get_info()[1])
    try:
        scanner = scan.build(packed, 12)
        assert scanner.engine == "cuda"
        with pytest.raises(DeviceFull, match="bytes needed"):
            CudaScanner(packed, 12, "cuda").add(np.zeros((50_000_000, 6), dtype=np.uint8))
        scanner.add(np.zeros((50_000_000, 6), dtype=np.uint8))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert scanner.engine != "cuda"
    assert len(scanner) == 50_001_000
    scanner._retry_at = 0
    scanner.search(np.zeros((1, 12, 16), dtype=np.float32), 1)
    until(lambda: scanner.engine == "cuda", 120)
    assert len(scanner) == 50_001_000
