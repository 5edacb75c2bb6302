"""Compares every engine with a naive loop, and tests what all of them guarantee."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpq import scan
from gpq.errors import ScanError
from gpq.model.codebook import pack as packed
from gpq.scan import Mask, engines, native, reference
from tests.scanners import build


def naive(codes, lut, k, mask=None, after=None, removed=()):
    """Scores every code and sorts by (-score, row)."""
    scored = []
    for row, code in enumerate(codes):
        score = np.float32(0)
        for m, c in enumerate(code):
            score = np.float32(score + lut[m, c])
        if row in removed or (mask is not None and not (row < len(mask) and mask[row])):
            continue
        if after is None or (-score, row) > (-np.float32(after[0]), after[1]):
            scored.append((-score, row))
    scored.sort()
    return [row for _, row in scored[:k]], [-score for score, _ in scored[:k]]


ENGINES = [
    "reference",
    pytest.param(
        "native", marks=pytest.mark.skipif(bool(native.missing()), reason=native.missing())
    ),
    "cuda",
    "cuda, sharded",
]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("engine", ENGINES)
@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    M=st.integers(1, 13),
    n=st.sampled_from([0, 1, 2, 7, 65, 200]),
    k=st.sampled_from([1, 3, 10, 300]),
    levels=st.sampled_from([1, 2, 1000]),
    use_mask=st.booleans(),
    use_after=st.booleans(),
)
def test_rows_and_scores_are_the_naive_loops(
    engine, seed, M, n, k, levels, use_mask, use_after
) -> None:
    random = np.random.default_rng(seed)
    codes = random.integers(0, 16, (n, M), dtype=np.uint8)
    # Few levels make ties. Whether sums are equal may depend on the order of summing.
    luts = (random.integers(-levels, levels + 1, (2, M, 16)) / np.float32(7 * levels)).astype("f4")
    mask = random.random(random.integers(0, n + 1)) < 0.5 if use_mask else None
    scanner = build(packed(codes), M, engine)
    removed = random.integers(0, n, 3) if n else np.empty(0, dtype=np.int64)
    scanner.remove(removed)
    after = None
    if use_after and n:
        score = naive(codes[:1], luts[0], 1)[1][0]
        after = (float(score), int(random.integers(0, n)))
    rows, scores = scanner.search(luts, k, mask, after)
    assert rows.shape == scores.shape == (2, k)
    for q in range(2):
        expected_rows, expected_scores = naive(codes, luts[q], k, mask, after, set(removed))
        found = len(expected_rows)
        assert rows[q, :found].tolist() == expected_rows
        assert scores[q, :found].tolist() == expected_scores
        assert (rows[q, found:] == -1).all()
        assert (scores[q, found:] == -np.inf).all()


def test_chunks_and_query_groups_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    codes = packed(random.integers(0, 16, (500, 5), dtype=np.uint8))
    luts = random.standard_normal((4, 5, 16)).astype(np.float32)
    whole = build(codes, 5, "reference").search(luts, 20)
    monkeypatch.setattr(reference, "CHUNK_ROWS", 64)
    monkeypatch.setattr(reference, "SCORES_AT_A_TIME", 700)
    parts = build(codes, 5, "reference").search(luts, 20)
    assert (whole[0] == parts[0]).all()
    assert (whole[1] == parts[1]).all()


def test_paging_by_after_gives_the_whole_order(engine: str) -> None:
    random = np.random.default_rng(2)
    codes = packed(random.integers(0, 2, (300, 3), dtype=np.uint8))
    lut = random.standard_normal((1, 3, 16)).astype(np.float32)
    scanner = build(codes, 3, engine)
    everything = scanner.search(lut, 300)[0][0].tolist()
    paged: list[int] = []
    after = None
    while True:
        rows, scores = scanner.search(lut, 7, after=after)
        found = rows[0] >= 0
        if not found.any():
            break
        paged += rows[0][found].tolist()
        after = float(scores[0][found][-1]), int(rows[0][found][-1])
    assert paged == everything


def test_any_score_and_row_to_go_on_after(engine: str) -> None:
    random = np.random.default_rng(4)
    codes = random.integers(0, 16, (30, 2), dtype=np.uint8)
    lut = (random.integers(-2, 3, (2, 16)) / np.float32(4)).astype(np.float32)
    scanner = build(packed(codes), 2, engine)
    for score in (np.nan, np.inf, -np.inf, -0.0, 0.25, 0.3):
        for row in (-(2**40), -2, -1, 7, 2**31, 2**40):
            rows, _ = scanner.search(lut[None], 40, after=(score, row))
            expected = naive(codes, lut, 40, after=(score, row))[0]
            assert rows[0][rows[0] >= 0].tolist() == expected, (score, row)


def test_a_score_beyond_float32_comes_before_or_after_all(engine: str) -> None:
    scanner = build(np.array([[5], [1]], dtype=np.uint8), 1, engine)
    lut = np.zeros((1, 1, 16), dtype=np.float32)
    assert scanner.search(lut, 2, after=(1e300, 7))[0].tolist() == [[0, 1]]
    assert scanner.search(lut, 2, after=(-1e300, -1))[0].tolist() == [[-1, -1]]


def test_rows_keep_their_numbers_and_len_counts_the_live(engine: str) -> None:
    lut = np.zeros((1, 1, 16), dtype=np.float32)
    lut[0, 0, 5] = 1
    scanner = build(np.array([[5], [1]], dtype=np.uint8), 1, engine)
    assert scanner.add(np.array([[5], [5]], dtype=np.uint8)).tolist() == [2, 3]
    assert len(scanner) == 4
    scanner.remove(np.array([0, 2, 0]))
    assert len(scanner) == 2
    assert scanner.search(lut, 4)[0][0].tolist() == [3, 1, -1, -1]
    assert scanner.add(np.array([[5]], dtype=np.uint8)).tolist() == [4]
    assert scanner.search(lut, 3)[0][0].tolist() == [3, 4, 1]


def test_a_mask_excludes_rows_added_after_it(engine: str) -> None:
    scanner = build(np.array([[1]], dtype=np.uint8), 1, engine)
    mask = np.array([True])
    scanner.add(np.array([[1]], dtype=np.uint8))
    lut = np.ones((1, 1, 16), dtype=np.float32)
    assert scanner.search(lut, 5, mask)[0][0].tolist() == [0, -1, -1, -1, -1]


def test_a_mask_for_many_searches_stays_what_it_was(engine: str) -> None:
    """Writing to the array, or to a view of it, does not change the mask."""
    scanner = build(np.ones((4, 1), dtype=np.uint8), 1, engine)
    lut = np.ones((1, 1, 16), dtype=np.float32)
    array = np.array([True, False, True, False])
    view = array[:]
    array.setflags(write=False)
    mask = Mask(array)
    assert scanner.search(lut, 4, mask)[0][0].tolist() == [0, 2, -1, -1]
    view[:] = [False, True, True, True]
    assert scanner.search(lut, 4, array)[0][0].tolist() == [1, 2, 3, -1]
    assert scanner.search(lut, 4, mask)[0][0].tolist() == [0, 2, -1, -1]
    scanner.remove(np.array([2]))
    scanner.add(np.ones((1, 1), dtype=np.uint8))
    assert scanner.search(lut, 4, mask)[0][0].tolist() == [0, -1, -1, -1]
    with pytest.raises(ValueError, match="WRITEABLE"):
        mask.rows.setflags(write=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_tables_that_are_not_finite_are_refused(bad: float, engine: str) -> None:
    scanner = build(np.zeros((1, 1), dtype=np.uint8), 1, engine)
    lut = np.zeros((1, 1, 16), dtype=np.float32)
    lut[0, 0, 3] = bad
    with pytest.raises(ScanError, match="finite"):
        scanner.search(lut, 1)


def test_wrong_arguments_are_named(engine: str) -> None:
    scanner = build(np.zeros((1, 2), dtype=np.uint8), 3, engine)
    lut = np.zeros((1, 3, 16), dtype=np.float32)
    with pytest.raises(ScanError, match=r"\(Q,3,16\)"):
        scanner.search(lut[:, :2], 1)
    with pytest.raises(ScanError, match="k is 0"):
        scanner.search(lut, 0)
    with pytest.raises(ScanError, match=r"uint8 \(n,2\)"):
        scanner.add(np.zeros((1, 3), dtype=np.uint8))
    with pytest.raises(ScanError, match="outside 0…0"):
        scanner.remove(np.array([1]))
    with pytest.raises(ScanError, match="outside 0…0"):
        scanner.codes(np.array([1]))
    for mask in (np.ones((1, 1), dtype=bool), np.ones(1)):
        with pytest.raises(ScanError, match=r"expected bool \(n,\)"):
            scanner.search(lut, 1, mask)
        with pytest.raises(ScanError, match=r"expected bool \(n,\)"):
            Mask(mask)
    with pytest.raises(ScanError, match="M is 0"):
        build(np.zeros((1, 0), dtype=np.uint8), 0, engine)


def test_sums_that_could_overflow_are_refused(engine: str) -> None:
    scanner = build(np.zeros((1, 1), dtype=np.uint8), 2, engine)
    with pytest.raises(ScanError, match="too large"):
        scanner.search(np.full((1, 2, 16), 3e38, dtype=np.float32), 1)


def test_codes_and_rows_are_those_added(engine: str) -> None:
    random = np.random.default_rng(3)
    codes = packed(random.integers(0, 16, (100, 5), dtype=np.uint8))
    scanner = build(codes[:60], 5, engine)
    scanner.add(codes[60:])
    scanner.remove(np.array([0, 99, 70]))
    assert scanner.rows().tolist() == [r for r in range(100) if r not in (0, 70, 99)]
    assert (scanner.codes(np.array([98, 1, 60])) == codes[[98, 1, 60]]).all()


def test_an_unavailable_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.zeros((1, 2), dtype=np.uint8)
    with pytest.raises(ScanError, match="no scan engine 'gpu'"):
        scan.build(codes, 3, engine="gpu")
    monkeypatch.setattr(engines.cuda, "missing", lambda: "")
    monkeypatch.setattr(engines.cuda, "describe", lambda: "on a GPU")
    assert scan.choose("auto") == ("cuda", "the fastest available, on a GPU")
    monkeypatch.setattr(engines.cuda, "missing", lambda: "no GPU")
    monkeypatch.setattr(engines.native, "missing", lambda: "")
    monkeypatch.setattr(engines.native, "describe", lambda: "with sse9")
    no_gpu = "the cuda scan engine is unavailable: no GPU"
    assert scan.choose("auto") == ("native", f"the fastest available, with sse9; {no_gpu}")
    assert scan.choose("native") == ("native", "requested, with sse9")
    assert scan.choose("reference") == ("reference", "requested")
    with pytest.raises(ScanError, match=no_gpu):
        scan.build(codes, 3, engine="cuda")
    monkeypatch.setattr(engines.native, "missing", lambda: "no compiler")
    no_native = "the native scan engine is unavailable: no compiler"
    assert scan.choose("auto") == ("reference", f"{no_gpu}; {no_native}")
    assert scan.build(codes, 3).engine == "reference"
    with pytest.raises(ScanError, match=no_native):
        scan.build(codes, 3, engine="native")
