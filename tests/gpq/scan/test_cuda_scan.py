"""Compares the CUDA engine with the reference, on a GPU or in Triton's interpreter."""

import gc
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from gpq import scan
from gpq.errors import DeviceFull, ScanError
from gpq.scan import cuda
from gpq.scan.cuda import memory, search
from gpq.scan.cuda.kernels import bound, exact, key
from gpq.scan.cuda.scanner import CudaScanner
from gpq.scan.mask import Mask
from gpq.scan.reference import ReferenceScanner
from gpq.scan.spilling import SpillingScanner
from tests.scanners import DEVICE, assert_same, build, codes_like, luts_like


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes slabs, blocks and buffers so small that little data fills many, and overflows them."""
    monkeypatch.setattr(memory, "LEAST_ROWS", 64)
    monkeypatch.setattr(memory, "MULTIPLE", 64)
    for module in (exact, search):
        monkeypatch.setattr(module, "ROWS", 64)
    monkeypatch.setattr(bound, "ROWS", 64)
    monkeypatch.setattr(search, "MOST_KEYS", 64)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("engine", ["cuda", "cuda, sharded"])
@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    M=st.one_of(st.integers(1, 13), st.integers(14, 64)),
    n=st.sampled_from([0, 1, 31, 64, 65, 700, 1500]),
    codes=st.sampled_from(["uniform", "clustered", "few", "one"]),
    luts=st.sampled_from(["normal", "levels", "mixed", "huge", "denormal", "equal", "negative"]),
    Q=st.sampled_from([1, 2, search.MANY, 17]),
    k=st.sampled_from([1, 4, 40, 2000]),
    eligible=st.sampled_from([None, 0.5, 0.01, 0.0]),
    paging=st.booleans(),
)
def test_rows_and_scores_are_the_references(
    engine, seed, M, n, codes, luts, Q, k, eligible, paging
) -> None:
    random = np.random.default_rng(seed)
    packed = codes_like(codes, n, M, random)
    scanner, reference = build(packed, M, engine), ReferenceScanner(packed, M)
    if n:
        gone = random.integers(0, n, random.integers(0, n))
        scanner.remove(gone)
        reference.remove(gone)
    mask = None if eligible is None else random.random(random.integers(0, n + 1)) < eligible
    tables = luts_like(luts, Q, M, random)
    assert_same(scanner, reference, tables, k, mask)
    rows, scores = reference.search(tables[:1], k, mask)
    found = int((rows >= 0).sum())
    if paging and found:
        at = int(random.integers(0, found))
        assert_same(scanner, reference, tables, k, mask, (float(scores[0, at]), int(rows[0, at])))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("Q", [1, search.MANY])
@pytest.mark.parametrize("kind", ["ever better", "equal"])
def test_more_hits_than_there_is_room_for(
    kind: str, Q: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    collect = search.QueryBatch._collect

    def watch(part: search.QueryBatch, thresholds, first, last, step, many):
        asked.append((first, last))
        return collect(part, thresholds, first, last, step, many)

    monkeypatch.setattr(search.QueryBatch, "_collect", watch)
    packed = (np.arange(1500) * 16 // 1500 * (kind != "equal")).astype(np.uint8)[:, None]
    scanner, reference = build(packed, 1, "cuda"), ReferenceScanner(packed, 1)
    luts = np.arange(16, dtype=np.float32)[None, None].repeat(Q, axis=0)
    assert_same(scanner, reference, luts, 3)
    if kind == "ever better":  # several ranges, one of them again because it was too long
        assert len({first for first, _ in asked}) < len(asked) - asked.count((0, 1500))
    elif Q == search.MANY:
        assert len({first for first, _ in asked}) > 3


@pytest.mark.parametrize(
    ("k", "expected"),
    [(10, [2**18]), (100, [2**18, 1_526_718]), (4000, [2**18, 3_906_250, 62_500_000])],
)
def test_samples_are_as_small_as_will_do(k: int, expected: list[int]) -> None:
    growth = 2**18 // (4 * k)
    sizes = search.samples(10**9, 2**18, growth)
    assert sizes == expected
    assert all(b <= growth * a for a, b in zip(sizes, [*sizes[1:], 10**9], strict=True))
    assert search.samples(2**18, 2**18, growth) == []


@pytest.mark.parametrize("k", [1, 100])
def test_no_grid_is_too_large(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def best(part: search.QueryBatch) -> torch.Tensor:
        sizes.append(part.Q)
        return torch.zeros(part.Q, k)

    monkeypatch.setattr(search.QueryBatch, "best", best)
    luts = torch.zeros(9000, 1, 16)
    assert len(search.Search((), key.MOST_ROWS, luts, k, 0, paging=False).best()) == 9000
    for rows, queries in ((bound.ROWS, bound.MOST_QUERIES), (exact.ROWS, exact.MOST_QUERIES)):
        assert -(-key.MOST_ROWS // rows) * -(-max(sizes) // queries) < 2**31


@pytest.mark.parametrize("Q", [1, 20])
def test_blocks_of_the_size_in_use(Q: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_KEYS", 2048)  # the interpreter is slow and visits all keys
    random = np.random.default_rng(1)
    packed = codes_like("clustered", 2500, 12, random)
    scanner, reference = build(packed, 12, "cuda"), ReferenceScanner(packed, 12)
    assert_same(scanner, reference, luts_like("normal", Q, 12, random), 10)


@pytest.mark.parametrize("M", [*range(1, 17), 31, 64])
def test_codes_of_any_length(M: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_KEYS", 2048)
    random = np.random.default_rng(M)
    packed = codes_like("clustered", 40, M, random)
    scanner, reference = build(packed, M, "cuda"), ReferenceScanner(packed, M)
    for Q in (1, 3, search.MANY):
        assert_same(scanner, reference, luts_like("levels", Q, M, random), 10)


class Changes(RuleBasedStateMachine):
    """Adds and removes codes in any order, over slabs of few rows."""

    @initialize(
        seed=st.integers(0, 2**31),
        M=st.integers(1, 5),
        n=st.integers(0, 300),
        engine=st.sampled_from(["cuda", "cuda, sharded"]),
    )
    def start(self, seed: int, M: int, n: int, engine: str) -> None:
        self.random, self.M = np.random.default_rng(seed), M
        codes = codes_like("uniform", n, M, self.random)
        self.scanner, self.reference = build(codes, M, engine), ReferenceScanner(codes, M)
        self.count, self.mask = n, self.random.random(n) < 0.5

    @rule(n=st.integers(0, 150), kind=st.sampled_from(["uniform", "clustered", "one"]))
    def add(self, n: int, kind: str) -> None:
        codes = codes_like(kind, n, self.M, self.random)
        assert self.scanner.add(codes).tolist() == self.reference.add(codes).tolist()
        self.count += n

    @rule(share=st.floats(0, 1))
    def remove(self, share: float) -> None:
        gone = np.flatnonzero(self.random.random(self.count) < share)
        self.scanner.remove(gone)
        self.reference.remove(gone)

    @rule(share=st.sampled_from([0.5, 0.01]))
    def choose(self, share: float) -> None:
        self.mask = Mask(self.random.random(self.count) < share)

    @rule(k=st.sampled_from([1, 20]), Q=st.sampled_from([1, 4]), masked=st.booleans())
    def search(self, k: int, Q: int, masked: bool) -> None:
        tables = luts_like("levels", Q, self.M, self.random)
        assert_same(self.scanner, self.reference, tables, k, self.mask if masked else None)

    @rule()
    def look(self) -> None:
        rows = self.reference.rows()
        assert len(self.scanner) == len(rows)
        assert self.scanner.rows().tolist() == rows.tolist()
        assert self.scanner.codes(rows).tolist() == self.reference.codes(rows).tolist()


@pytest.mark.usefixtures("small")
def test_any_sequence_of_changes_is_the_references() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Changes, settings=settings(deadline=None, max_examples=12, stateful_step_count=25)
    )


@pytest.mark.usefixtures("small")
def test_codes_stay_where_they_are_while_others_are_added() -> None:
    random = np.random.default_rng(0)
    scanner = CudaScanner(codes_like("uniform", 64, 6, random), 6, DEVICE)
    first = scanner.snapshot.slabs[0].planes.data_ptr()
    for _ in range(5):
        scanner.add(codes_like("uniform", 50, 6, random))
    scanner.remove(np.arange(10))
    assert scanner.snapshot.slabs[0].planes.data_ptr() == first
    assert len(scanner.snapshot.slabs) > 2


@pytest.mark.usefixtures("small")
def test_a_snapshot_is_not_changed_by_what_comes_after() -> None:
    random = np.random.default_rng(0)
    scanner = CudaScanner(codes_like("one", 50, 6, random), 6, DEVICE)
    before, luts = scanner.snapshot, luts_like("equal", 1, 6, random)
    scanner.add(codes_like("one", 50, 6, random))
    scanner.remove(np.arange(10))
    rows, _ = scanner.search_in(before, luts, 200, None, None)
    assert rows[0][rows[0] >= 0].tolist() == list(range(50))
    rows, _ = scanner.search(luts, 200)
    assert rows[0][rows[0] >= 0].tolist() == list(range(10, 100))


@pytest.mark.parametrize("engine", ["cuda", "cuda, sharded"])
def test_a_mask_for_many_searches_goes_to_each_device_once(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    scanner = build(codes_like("uniform", 500, 6, random), 6, engine)
    shards = getattr(scanner, "shards", [scanner])
    masked, uploads = memory.masked, []
    monkeypatch.setattr(memory, "masked", lambda *a: uploads.append(1) or masked(*a))
    mask = Mask(random.random(500) < 0.5)
    for _ in range(2):
        scanner.search(luts_like("normal", 1, 6, random), 5, mask)
    assert len(uploads) == len(shards)
    del mask
    gc.collect()
    assert not any(shard._masks for shard in shards)


def test_a_full_device_reports_the_memory_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.zeros((10, 6), dtype=np.uint8)
    scanner = CudaScanner(codes, 12, DEVICE)

    def full(*sizes: object, **more: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "zeros", full)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1_000)
    with pytest.raises(DeviceFull, match=r"200,704 codes: 1,229,312 bytes needed, 1,000 free"):
        scanner.add(np.zeros((266_000, 6), dtype=np.uint8))
    assert len(scanner) == 10
    monkeypatch.undo()
    scanner.add(codes)
    assert len(scanner) == 20


def test_codes_move_to_the_cpu_if_the_device_is_full(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(0)
    codes, luts = codes_like("uniform", 400, 6, random), luts_like("levels", 2, 6, random)
    device: list[CudaScanner] = []

    def on_device(packed: np.ndarray) -> CudaScanner:
        device.append(CudaScanner(packed, 6, DEVICE))
        return device[-1]

    def full(*arguments: object) -> None:
        raise DeviceFull("no room")

    for blocked in ("_reserve", "search_in", None):
        scanner = SpillingScanner(codes[:200], on_device, lambda c: ReferenceScanner(c, 6))
        reference = ReferenceScanner(codes[:200], 6)
        with monkeypatch.context() as patch:
            for each in (scanner, reference):
                each.remove(np.array([3, 199]))
            if blocked:
                patch.setattr(device[-1], blocked, full)
            added = [each.add(codes[200:]).tolist() for each in (scanner, reference)]
            assert added[0] == added[1]
            assert_same(scanner, reference, luts, 500)
        assert scanner.engine == ("reference" if blocked else "cuda")
        assert scanner.rows().tolist() == reference.rows().tolist()
        assert len(scanner) == len(reference)
    assert caplog.text.count("the codes move to the CPU for now: no room") == 2
    monkeypatch.setattr(memory, "empty_slab", full)
    scanner = SpillingScanner(codes, on_device, lambda c: ReferenceScanner(c, 6))
    assert scanner.engine == "reference"
    assert_same(scanner, ReferenceScanner(codes, 6), luts, 5)


def test_codes_go_back_to_the_device_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    codes, luts = codes_like("uniform", 300, 6, random), luts_like("levels", 1, 6, random)
    room = False
    tried = threading.Event()

    def on_device(packed: np.ndarray) -> CudaScanner:
        tried.set()
        if not room:
            raise DeviceFull("no room")
        return CudaScanner(packed, 6, DEVICE)

    scanner = SpillingScanner(codes, on_device, lambda c: ReferenceScanner(c, 6))
    reference = ReferenceScanner(codes, 6)

    def search() -> str:
        """Searches, and returns the engine after the device was tried again, if that was due."""
        tried.clear()
        assert_same(scanner, reference, luts, 400)
        tried.wait(0.5)
        with scanner._writing:
            return scanner.engine

    for each in (scanner, reference):
        each.remove(np.array([0, 7]))
        each.add(codes[:9])
    assert search() == "reference" and not tried.is_set()
    scanner._retry_at = 0
    assert search() == "reference" and tried.is_set()
    room = True
    assert search() == "reference" and not tried.is_set()
    scanner._retry_at = 0
    assert search() == "cuda"
    assert_same(scanner, reference, luts, 400)
    assert scanner.rows().tolist() == reference.rows().tolist()
    waited = scanner._retry_seconds
    monkeypatch.setattr(scanner._scanner, "search_in", lambda *a: on_device(codes))
    room = False
    assert search() == "reference"
    assert scanner._retry_seconds == 2 * waited


def test_shards_add_all_codes_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    codes, luts = codes_like("uniform", 30, 2, random), luts_like("levels", 1, 2, random)
    scanner, reference = build(codes[:10], 2, "cuda, sharded"), ReferenceScanner(codes[:10], 2)
    write, writes = memory.write, 0

    def full_after_one(*arguments: Any) -> None:
        nonlocal writes
        writes += 1
        if writes > 1:
            raise DeviceFull("no room")
        write(*arguments)

    monkeypatch.setattr(memory, "write", full_after_one)
    with pytest.raises(DeviceFull, match="no room"):
        scanner.add(codes[10:20])
    assert writes == 2
    assert len(scanner) == 10
    assert_same(scanner, reference, luts, 30)
    monkeypatch.undo()
    for each in (scanner, reference):
        assert each.add(codes[20:]).tolist() == list(range(10, 20))
    assert_same(scanner, reference, luts, 30)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=2), st.data())
def test_keys_are_in_the_order_of_hits(scores: list[float], data: st.DataObject) -> None:
    hits = [(s + 0.0, data.draw(st.integers(0, key.MOST_ROWS - 1))) for s in scores]
    one, other = (key.key(*hit) for hit in hits)
    better = (-hits[0][0], hits[0][1]) < (-hits[1][0], hits[1][1])
    assert (one > other) == better
    keys = torch.tensor([one, other])
    assert key.rows(keys).tolist() == [row for _, row in hits]
    assert key.scores(keys).tolist() == [score for score, _ in hits]
    assert key.rows(torch.tensor([key.NONE])).tolist() == [-1]
    assert key.scores(torch.tensor([key.NONE])).tolist() == [-np.inf]


@given(seed=st.integers(0, 2**31), M=st.integers(1, 64), kind=st.sampled_from(["normal", "mixed"]))
def test_the_bound_keeps_every_code_that_reaches_the_threshold(seed, M, kind) -> None:
    random = np.random.default_rng(seed)
    luts = torch.from_numpy(luts_like(kind, 1, M, random))
    codes = torch.from_numpy(random.integers(0, 16, (500, M)))
    scores = torch.zeros(500)
    for m in range(M):
        scores += luts[0, m][codes[:, m]]
    threshold = scores.topk(20).values[-1:]
    tables, limits = bound.tables(luts, threshold, 16)
    assert limits.tolist() == [bound.LIMIT] + [-1] * 15
    of_query = tables[:, 0].reshape(-1, 16)
    sums = sum(of_query[m].int()[codes[:, m]] for m in range(M))
    assert (sums[scores >= threshold] <= limits[0]).all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_on_which_a_search_fails_is_not_used_and_the_reason_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda, "cuda_missing", lambda: "")
    monkeypatch.setattr(cuda, "missing", cuda.missing.__wrapped__)  # without its cache
    name, why = scan.choose("auto")
    assert name != "cuda"
    assert "the cuda scan engine is unavailable: a search fails: " in why
    with pytest.raises(ScanError, match="a search fails: "):
        scan.choose("cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported() -> None:
    assert cuda.missing() == "there is no CUDA device"


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from gpq.scan.cuda.kernels import bound, exact, rescore

TYPES = {"planes": "*u8", "stride": "i32", "eligible": "*u8", "capacity": "i32", "base": "i32",
         "start": "i32", "end": "i32", "step": "i32", "thresholds": "*i64", "counts": "*i32",
         "luts": "*fp32", "keys": "*i64", "survivors": "*i32", "limits": "*i32",
         "tables": "*i8", "one_hots": "*i8", "tiles": "i32", "queries": "i32", "least": "*fp32",
         "after": "i64"}


def ptx(kernel, num_warps, constants, **types):
    names = kernel.arg_names
    types = TYPES | types | dict.fromkeys(constants, "constexpr")
    made = compile(
        ASTSource(
            kernel,
            {name: types[name] for name in names},
            {(names.index(name),): value for name, value in constants.items()},
            {(n,): [["tt.divisibility", 16]] for n, a in enumerate(names) if types[a][0] == "*"},
        ),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": num_warps},
    )
    assert made.asm["cubin"]
    return made.asm["ptx"]


tile = bound.LEAST_QUERIES
while tile <= bound.MOST_QUERIES:
    for planes in (6, 7) if tile == bound.MOST_QUERIES else (6,):
        sizes = {"PLANES": planes, "ROWS": bound.ROWS, "QUERIES": tile}
        text = ptx(bound.bound_kernel, bound.WARPS, sizes)
        alone = text.count("atom.global") == tile * bound.ROWS // (32 * bound.WARPS)
        print("bound", planes, tile, "wgmma.mma_async" in text, "mma.sync" in text, alone)
    tile *= 2
tile = 1
while tile <= exact.MOST_QUERIES:
    for M in (12, 13) if tile == 1 else (12,):
        sizes = {"M": M, "ROWS": exact.ROWS, "QUERIES": tile}
        text = ptx(exact.exact_kernel, exact.WARPS * tile, sizes, planes="*i32")
        scores = exact.ROWS // (32 * exact.WARPS)  # scores of a thread
        alone = text.count("atom.global") == scores
        print("exact", M, tile, text.count("ld.shared") >= M * scores, alone)
    tile *= 2
for M in (12, 13):
    ptx(rescore.rescore_kernel, 4, {"M": M, "SLOTS": rescore.SLOTS})
"""


def test_the_kernels_compile_for_an_h200() -> None:
    """The bound runs on the tensor cores, and look-ups of few queries are in shared memory. Each
    thread does its own atomic operations, because Triton 3.4 gives no other thread the result."""
    environment = {name: v for name, v in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split("\n")[:-1] == [
        *(f"bound 6 {tile} True False True" for tile in (16, 32, 64, 128)),
        "bound 7 128 True False True",
        "exact 12 1 True True",
        "exact 13 1 True True",
        "exact 12 2 True True",
        "exact 12 4 True True",
    ], done.stderr
    assert done.returncode == 0, done.stderr
