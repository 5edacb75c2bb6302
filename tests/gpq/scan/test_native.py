"""Compares the native engine with the reference: segments, merging, instruction sets, threads."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from gpq.errors import ScanError
from gpq.scan.mask import Mask
from gpq.scan.native import NativeScanner, division, library, masks, merging, missing, scanner, tail
from gpq.scan.native.repeats import MOST, Repeats
from gpq.scan.native.segment import Segment
from gpq.scan.reference import ReferenceScanner
from tests.scanners import assert_same, codes_like, luts_like

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
SETS = ["avx512vbmi", "avx512", "avx2", "neon", "portable"]


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**31),
    M=st.one_of(st.integers(1, 13), st.integers(14, 64)),
    n=st.sampled_from([0, 1, 64, 700, 5000, 70_000]),
    codes=st.sampled_from(["uniform", "clustered", "few", "one"]),
    luts=st.sampled_from(["normal", "levels", "mixed", "huge", "denormal", "equal", "negative"]),
    Q=st.sampled_from([0, 1, 2, 65]),
    k=st.sampled_from([1, 10, 100, 80_000]),
    eligible=st.sampled_from([None, 0.5, 0.01, 0.0]),
    prepared=st.booleans(),
    paging=st.booleans(),
    instructions=st.sampled_from(SETS),
)
def test_rows_and_scores_are_the_references(
    seed, M, n, codes, luts, Q, k, eligible, prepared, paging, instructions
) -> None:
    if not library.kernel().gpq_filter(instructions.encode()):
        instructions = "portable"
    random = np.random.default_rng(seed)
    packed = codes_like(codes, n, M, random)
    native = NativeScanner(packed, M, instructions=instructions)
    reference = ReferenceScanner(packed, M)
    assert native.instructions == instructions
    if n:
        gone = random.integers(0, n, random.integers(0, n))
        native.remove(gone)
        reference.remove(gone)
    mask = None if eligible is None else random.random(random.integers(0, n + 1)) < eligible
    if mask is not None and prepared:
        mask = Mask(mask)
    if Q * min(k, n) * M > 5_000_000:
        Q = 2
    tables = luts_like(luts, Q, M, random)
    assert_same(native, reference, tables, k, mask)
    rows, scores = reference.search(tables[:1], k, mask)
    found = int((rows >= 0).sum())
    if paging and found:
        at = int(random.integers(0, found))
        assert_same(native, reference, tables, k, mask, (float(scores[0, at]), int(rows[0, at])))


@pytest.mark.parametrize(
    "instructions", [name for name in SETS if library.kernel().gpq_filter(name.encode())]
)
@pytest.mark.parametrize("M", [17, 24, 32, 63, 64])
@pytest.mark.parametrize("codes", ["uniform", "clustered"])
def test_long_codes_whose_sums_of_deficits_are_wide(codes: str, M: int, instructions: str) -> None:
    random = np.random.default_rng(M)
    packed = codes_like(codes, 70_000, M, random)
    native = NativeScanner(packed[:69_000], M, instructions=instructions)
    native.add(packed[69_000:])
    reference = ReferenceScanner(packed, M)
    for luts in ("normal", "levels", "equal"):
        tables = luts_like(luts, 3, M, random)
        assert_same(native, reference, tables, 30)
        tables[:, ::5, 3] -= 50  # deficits that are cut, because one of them excludes a code
        assert_same(native, reference, tables, 30, random.random(70_000) < 0.3)
        tables[0, :, 1:] -= 1e6  # only few deficits are not cut
        assert_same(native, reference, tables, 30)


@pytest.mark.parametrize("Q", [1, 3])
def test_a_mask_whose_sample_misleads_loses_no_hits(Q: int) -> None:
    random = np.random.default_rng(5)
    n, sampled = 200_000, 64 * np.arange(7, 200_000 // 64, 15)  # as gpq/scan/native/src/sample.h
    tables = luts_like("normal", Q, 12, random)
    packed = codes_like("uniform", n, 12, random)
    best = tables[0].argmax(axis=1)
    packed[sampled] = best[0::2] | best[1::2] << 4  # fewer than k rows, all of them in the sample
    mask = random.random(n) < 0.5
    mask[sampled] = True
    native, reference = NativeScanner(packed, 12), ReferenceScanner(packed, 12)
    for k in (1, 100, 1000):
        assert_same(native, reference, tables, k, mask)


@pytest.mark.parametrize("codes", ["uniform", "clustered"])
def test_sorted_groups_whose_first_sub_codes_are_stored_once(codes: str) -> None:
    random = np.random.default_rng(4)
    packed = codes_like(codes, 300_000, 9, random)
    native, reference = NativeScanner(packed, 9), ReferenceScanner(packed, 9)
    gone = random.integers(0, 300_000, 1000)
    native.remove(gone)
    reference.remove(gone)
    for luts in ("normal", "levels"):
        tables = luts_like(luts, 2, 9, random)
        for k in (1, 100, 5000):
            assert_same(native, reference, tables, k)
            assert_same(native, reference, tables, k, random.random(300_000) < 0.3)
        rows, scores = reference.search(tables[:1], 5000)
        after = (float(scores[0, -1]), int(rows[0, -1]))
        assert_same(native, reference, tables[:1], 50, None, after)
    rows = random.integers(0, 300_000, 500)
    rows = rows[~np.isin(rows, gone)]
    assert (native.codes(rows) == packed[rows]).all()


def test_a_mask_for_many_searches_is_prepared_once_and_cached_while_it_lives() -> None:
    random = np.random.default_rng(5)
    packed = codes_like("uniform", 70_000, 6, random)
    native, reference = NativeScanner(packed, 6), ReferenceScanner(packed, 6)
    tables = luts_like("normal", 2, 6, random)
    mask = Mask(random.random(70_000) < 0.2)
    assert_same(native, reference, tables, 10, mask)
    prepared = [native._masks.eligible(native._snapshot, mask) for _ in range(2)]
    assert prepared[0].segments[0] is prepared[1].segments[0]
    assert prepared[0].segments[0].size == mask.rows[: native._snapshot.segments[0].last_row].sum()
    del mask
    assert not native._masks._cache


def test_a_repeated_array_is_prepared_in_the_background() -> None:
    random = np.random.default_rng(5)
    packed = codes_like("uniform", 300_000, 6, random)
    native, reference = NativeScanner(packed, 6), ReferenceScanner(packed, 6)
    tables = luts_like("normal", 1, 6, random)
    rows = random.random(300_000) < 0.2

    def is_prepared() -> bool:
        return native._masks.prepared(native._snapshot, rows) is not None

    for _ in range(2):
        assert_same(native, reference, tables, 10, rows)
        wait_for_sorting()
        assert len(native._masks._cache) == 0
    assert_same(native, reference, tables, 10, rows)
    wait_for_sorting()
    assert is_prepared()
    assert_same(native, reference, tables, 10, rows)
    rows[reference.search(tables, 1, rows)[0][0, 0]] = False  # the best row is no longer eligible
    assert_same(native, reference, tables, 10, rows)
    wait_for_sorting()
    assert len(native._masks._cache) == 0  # the array may change before every search
    assert_same(native, reference, tables, 10, rows)
    wait_for_sorting()
    assert is_prepared()
    assert_same(native, reference, tables, 10, rows)


def test_only_the_last_used_arrays_that_are_passed_twice_are_kept() -> None:
    random = np.random.default_rng(6)
    repeats, arrays = Repeats(), [random.random(5000) < 0.1 for _ in range(3 * MOST)]
    for rows in arrays:
        assert repeats.find(rows, 5000) is None
        assert repeats.masks() == []
    for rows in arrays:
        assert repeats.find(rows, 5000) is None  # too many other arrays in between
    for rows in arrays[: MOST + 1]:
        assert [repeats.find(rows, 5000) for _ in range(2)] == [None] * 2
        found = repeats.find(rows.copy(), 5000)
        assert found is not None
        assert (found.rows == rows).all()
        assert repeats.find(arrays[0], 5000)  # used again and again
    kept = [mask.rows.tolist() for mask in repeats.masks()]
    assert len(kept) == MOST
    assert arrays[0].tolist() in kept
    assert arrays[1].tolist() not in kept


def test_kept_arrays_have_no_more_eligible_rows_than_there_are_codes() -> None:
    repeats = Repeats()
    half, more, all_of = np.zeros((3, 1000), dtype=bool)
    half[::2], more[:700], all_of[:] = True, True, True
    for rows, kept in ((half, [500]), (more, [700]), (half, [500]), (all_of, [1000])):
        found = [repeats.find(rows, 1000) for _ in range(3)][-1]
        assert found is not None and (found.rows == rows).all()
        assert [int(mask.rows.sum()) for mask in repeats.masks()] == kept
    assert repeats.find(all_of, 999) is not None  # kept before codes were removed
    longer = np.ones(1001, dtype=bool)
    assert [repeats.find(longer, 1000) for _ in range(3)] == [None] * 3
    assert repeats.masks() == []


def test_an_empty_array_of_eligible_rows() -> None:
    repeats = Repeats()
    for _ in range(3):
        repeats.find(np.zeros(0, dtype=bool), 10)
    assert [len(mask.rows) for mask in repeats.masks()] == [0]


def test_a_search_without_its_instructions_is_refused() -> None:
    native = NativeScanner(np.zeros((1, 1), dtype=np.uint8), 2)
    native.instructions = "sse9"
    with pytest.raises(ScanError, match="the scan kernel failed with status 3"):
        native.search(np.zeros((1, 2, 16), dtype=np.float32), 1)


def test_a_segment_without_find_rows_returns_zeros() -> None:
    codes = np.full((3, 1), 5, dtype=np.uint8)
    rows = np.arange(3, dtype=np.uint32)
    assert Segment(codes, rows, 2, 3, find_rows=False).codes(rows).tolist() == [[0], [0], [0]]


@pytest.mark.parametrize("row", [-1, -(2**40), 2**32, 2**60])
def test_paging_after_a_row_that_was_never_added(row: int) -> None:
    codes = np.zeros((5, 1), dtype=np.uint8)
    lut = np.zeros((1, 2, 16), dtype=np.float32)
    assert_same(NativeScanner(codes, 2), ReferenceScanner(codes, 2), lut, 3, None, (0.0, row))


class Changes(RuleBasedStateMachine):
    """Adds, removes and merges codes in any order, with tails and segments of few rows."""

    @initialize(seed=st.integers(0, 2**31), M=st.integers(1, 5), n=st.integers(0, 2000))
    def start(self, seed: int, M: int, n: int) -> None:
        self.random, self.M = np.random.default_rng(seed), M
        codes = codes_like("uniform", n, M, self.random)
        self.native, self.reference = NativeScanner(codes, M), ReferenceScanner(codes, M)
        self._choose(self.random.random(n) < 0.5)

    @rule(n=st.integers(0, 700), kind=st.sampled_from(["uniform", "clustered", "one"]))
    def add(self, n: int, kind: str) -> None:
        codes = codes_like(kind, n, self.M, self.random)
        assert self.native.add(codes).tolist() == self.reference.add(codes).tolist()

    @rule(share=st.floats(0, 1))
    def remove(self, share: float) -> None:
        count = self.native._snapshot.count
        gone = np.flatnonzero(self.random.random(count) < share)
        self.native.remove(gone)
        self.reference.remove(gone)

    @rule()
    def merge(self) -> None:
        self.native.merge()

    @rule(share=st.sampled_from([0.5, 0.01]))
    def choose(self, share: float) -> None:
        self._choose(self.random.random(self.native._snapshot.count) < share)

    def _choose(self, rows: np.ndarray) -> None:
        self.array, self.mask = rows, Mask(rows)

    @rule(share=st.sampled_from([0.5, 0.01]))
    def change_some(self, share: float) -> None:
        """Changes some rows of the array that may have been passed before."""
        changed = self.random.random(len(self.array)) < share
        self.array[changed] = ~self.array[changed]

    @rule(
        k=st.sampled_from([1, 20, 5000]),
        mask=st.sampled_from(["none", "new", "again", "for many"]),
        paging=st.booleans(),
    )
    def search(self, k: int, mask: str, paging: bool) -> None:
        tables = luts_like("levels", 2, self.M, self.random)
        count = self.native._snapshot.count
        given = {
            "none": None,
            "new": self.random.random(count) < 0.3,
            "again": self.array,
            "for many": self.mask,
        }[mask]
        if mask == "again":
            for _ in range(3):
                self.native.search(tables, k, self.array)
            wait_for_sorting()
        after = None
        if paging:
            rows, scores = self.reference.search(tables[:1], k, given)
            last = int((rows >= 0).sum()) - 1
            after = (float(scores[0, last]), int(rows[0, last])) if last >= 0 else None
        assert_same(self.native, self.reference, tables, k, given, after)

    @rule()
    def look(self) -> None:
        rows = self.reference.rows()
        assert len(self.native) == len(rows)
        assert self.native.rows().tolist() == rows.tolist()
        assert self.native.codes(rows).tolist() == self.reference.codes(rows).tolist()


def wait_for_sorting() -> None:
    for thread in threading.enumerate():
        if thread.name == "scan-sort":
            thread.join()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes tails of 128 rows and segments of at most 512, so that little data fills many."""
    monkeypatch.setattr(tail, "ROWS", 128)
    monkeypatch.setattr(merging, "LEAST_LARGEST", 512)
    monkeypatch.setattr(masks, "LEAST_CODES", 1)


@pytest.mark.usefixtures("small")
def test_any_sequence_of_changes_is_the_references() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Changes, settings=settings(deadline=None, max_examples=60))


@pytest.mark.usefixtures("small")
def test_merging_leaves_few_segments_and_no_removed_codes() -> None:
    random = np.random.default_rng(0)
    native = NativeScanner(codes_like("uniform", 0, 6, random), 6)
    for _ in range(100):
        native.add(codes_like("uniform", 100, 6, random))
    native.merge()
    snapshot = native._snapshot
    assert len(snapshot.tails) == 1
    assert sum(s.size for s in snapshot.segments) == 9984  # the rows of full tails
    assert max(s.size for s in snapshot.segments) <= merging.largest(10_000)
    assert len(snapshot.segments) < 40
    native.remove(np.arange(0, 9984, 2))
    native.remove(np.arange(0, 5000))
    native.merge()
    assert sum(s.size for s in native._snapshot.segments) < 4000


@pytest.mark.usefixtures("small")
def test_searches_see_one_moment_while_others_add_remove_and_merge() -> None:
    """Codes are added and removed in pairs, so that every snapshot has an even number of hits."""
    random = np.random.default_rng(0)
    native = NativeScanner(codes_like("one", 0, 4, random), 4)
    done, odd = threading.Event(), []

    def write() -> None:
        for i in range(300):
            added = native.add(np.full((2 * random.integers(1, 20), 2), i % 3, dtype=np.uint8))
            if i % 3:
                native.remove(added[:2])
        done.set()

    def read() -> None:
        lut = np.zeros((1, 4, 16), dtype=np.float32)
        while not done.is_set():
            rows, _ = native.search(lut, 9000)
            found = rows[0][rows[0] >= 0]
            if len(found) % 2 or len(set(found.tolist())) != len(found):
                odd.append(len(found))

    threads = [threading.Thread(target=f) for f in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not odd


@pytest.mark.parametrize("Q", [1, 2, 7])
@pytest.mark.parametrize("kind", ["uniform", "clustered", "one"])
@pytest.mark.parametrize("eligible", [1.0, 0.5, 0.001])
def test_threads_that_divide_a_search_find_the_same(
    Q: int, kind: str, eligible: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    codes = codes_like(kind, 210_000, 12, random)
    luts = luts_like("levels", Q, 12, random)
    mask = random.random(len(codes)) < eligible
    scanners = [NativeScanner(codes[:200_000], 12, threads=n) for n in (1, 5)]
    for each in scanners:
        each.add(codes[200_000:])
    divided = []
    split = division.shares
    monkeypatch.setattr(scanner, "WORTH_THREADS", 1)
    monkeypatch.setattr(
        division, "shares", lambda *sizes: divided.append(split(*sizes)) or divided[-1]
    )
    for k, after in ((20, None), (3000, None), (20, (1.0, 100))):
        alone, together = (each.search(luts, k, mask, after) for each in scanners)
        assert alone[0].tolist() == together[0].tolist()
        assert alone[1].tobytes() == together[1].tobytes()
        assert [sum(map(len, groups)) for groups in divided[-2:]] == [1, {1: 5, 2: 4, 7: 5}[Q]]


def test_equal_codes_take_little_memory() -> None:
    random = np.random.default_rng(0)
    uniform = NativeScanner(codes_like("uniform", 200_000, 12, random), 12).bytes
    equal = NativeScanner(codes_like("one", 200_000, 12, random), 12).bytes
    spare = 6 * tail.ROWS  # the empty tail
    assert uniform < 15.5 * 200_000 + spare
    assert equal < 9.5 * 200_000 + spare


RSS = """
import ctypes, json, sys, threading, time
import numpy as np
from pathlib import Path
from gpq.scan.native import NativeScanner

def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

random = np.random.default_rng(0)
codes = random.integers(0, 256, (2_000_000, 6), dtype=np.uint8)
NativeScanner(codes[:65537], 12)
before = rss()
native = NativeScanner(codes if sys.argv[1] == "purge" else codes[:65537], 12)
native._background.work = lambda: None
if sys.argv[1] == "purge":
    for first in range(0, len(codes), 10_000):
        native.remove(first + np.flatnonzero(random.random(10_000) < 0.46))
else:
    native.add(codes[65537:])
steady = rss() - before
peak, done = 0, threading.Event()
def watch():
    global peak
    while not done.is_set():
        peak = max(peak, rss())
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
watcher.start()
native.merge()
done.set()
watcher.join()
print(json.dumps([peak - before, steady, rss() - before, native.bytes]))
"""


@pytest.mark.parametrize("what", ["merge", "purge"])
def test_merging_takes_less_than_half_as_much_memory_again(what: str) -> None:
    """Compares with the memory before or after the merge, whichever is larger."""
    done = subprocess.run([sys.executable, "-c", RSS, what], stdout=subprocess.PIPE, check=True)
    peak, before, after, counted = json.loads(done.stdout)
    assert counted * 0.9 < after < counted * 1.2
    assert what == "merge" or after < 0.8 * before
    assert peak < 1.5 * max(before, after)


def test_the_end_of_the_process_does_not_wait_or_crash_in_a_search() -> None:
    program = """
import threading, numpy as np
from gpq.scan.native import NativeScanner
codes = np.random.default_rng(0).integers(0, 256, (400_000, 6), dtype=np.uint8)
native = NativeScanner(codes, 12)
lut = np.random.default_rng(0).standard_normal((1, 12, 16)).astype("f4")
def search():
    while True:
        native.search(lut, 1000)
threading.Thread(target=search, daemon=True).start()
native.search(lut, 10)
"""
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_failed_merge_is_logged_and_not_repeated_at_once(
    small: None, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    native = NativeScanner(np.zeros((0, 1), dtype=np.uint8), 2)
    calls: list[int] = []

    def fail(merge: object) -> None:
        calls.append(1)
        raise MemoryError("no memory to sort")

    monkeypatch.setattr(native, "_run_merge", fail)
    for _ in range(300):
        native.add(np.zeros((2, 1), dtype=np.uint8))
    deadline = time.monotonic() + 10
    while not calls and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(calls) == 1
    assert "cannot sort codes; not trying again for 60 seconds" in caplog.text
    assert native.search(np.zeros((1, 2, 16), dtype=np.float32), 1000)[0][0].tolist()[:600] == list(
        range(600)
    )


def test_impossible_arguments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.zeros((1, 1), dtype=np.uint8)
    with pytest.raises(ScanError, match="M is 65; a code has 1 to 64"):
        NativeScanner(np.zeros((1, 33), dtype=np.uint8), 65)
    with pytest.raises(ScanError, match="lacks the instruction set 'sse9'"):
        NativeScanner(codes, 2, instructions="sse9")
    monkeypatch.setattr(scanner, "MOST_ROWS", 3)
    with pytest.raises(ScanError, match="4 rows are too many; the native engine holds at most 3"):
        NativeScanner(codes, 2).add(np.zeros((3, 1), dtype=np.uint8))


def test_a_missing_or_broken_kernel_is_reported_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(library, "FILE", tmp_path / "kernel.so")
    assert "needs a C++ compiler" in library.missing.__wrapped__()
    (tmp_path / "kernel.so").write_bytes(b"not a library")
    monkeypatch.setattr(library, "kernel", library.kernel.__wrapped__)
    assert "cannot be loaded" in library.missing.__wrapped__()


def test_a_kernel_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "kernel", library.kernel.__wrapped__)
    monkeypatch.setattr(library.ctypes, "sizeof", lambda _: 8)
    assert "is of another version; install gpq again" in library.missing.__wrapped__()
