import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.index.seqs import CHUNK, Seqs

gaps = st.sampled_from([1, 2, 300, 70_000, 2**33])


@given(st.lists(st.tuples(st.integers(0, 2 * CHUNK), gaps), max_size=5))
def test_a_seq_is_found_by_its_row_and_a_row_by_its_seq(parts: list[tuple[int, int]]) -> None:
    seqs, newest, expected = Seqs(np.empty(0, dtype=np.int64)), 0, []
    for count, gap in parts:
        added = newest + gap * np.arange(1, count + 1)
        seqs.append(added)
        expected += added.tolist()
        newest = expected[-1] if expected else 0
        assert seqs.newest == newest
        assert len(seqs) == len(expected)
    rows = np.arange(len(expected))
    assert seqs[rows].tolist() == expected
    some = rows[::-1][::7]
    assert seqs.rows_of(seqs[some]).tolist() == some.tolist()
    others = np.array([-5, 0, newest + 1, *(seq + 1 for seq in expected)])
    known = set(expected)
    assert seqs.rows_of(others).tolist() == [
        expected.index(seq) for seq in others.tolist() if seq in known
    ]


def test_dense_seqs_take_about_one_byte_each() -> None:
    assert Seqs(np.arange(100, 100_100)).bytes < 1.1 * 100_000
    assert Seqs(np.arange(0, 10_000_000, 50)).bytes < 2.1 * 200_000
