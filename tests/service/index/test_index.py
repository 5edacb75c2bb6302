import numpy as np
import pytest

from service.database.records import Change
from service.index.index import Codes, Index, checksum


def lut(favourite: int) -> np.ndarray:
    table = np.zeros((1, 2, 16), dtype=np.float32)
    table[0, :, favourite] = 0.5
    return table


def code(sub: int) -> bytes:
    return bytes([sub | sub << 4])


def change(seq: int, removes: int | None, code: bytes | None) -> Change:
    return Change(seq, removes, {} if code is None else {"m": code})


def loaded(*parts: list[tuple[int, bytes]]) -> Index:
    return Index("m", 2, "reference", Codes.gather(parts, 1))


def seqs(index: Index, favourite: int, k: int = 10) -> list[int]:
    return [seq for seq, _ in index.search(lut(favourite), k)[0]]


def test_a_change_that_comes_again_is_not_applied_again() -> None:
    index = Index("m", 2, "reference")
    changes = [
        change(3, None, code(1)),
        change(4, None, code(2)),
        change(7, 3, code(2)),
        change(8, 4, None),
    ]
    for _ in range(3):
        index.apply(changes)
        assert len(index) == 1
        assert index.search(lut(2), 5) == [[(7, 1.0)]]
    index.apply(changes[2:])
    assert seqs(index, 2) == [7]


def test_hits_with_equal_scores_are_in_seq_order() -> None:
    index = Index("m", 2, "reference")
    index = loaded([(5, code(1)), (9, code(1))])
    index.apply([change(12, None, code(1)), change(13, 5, code(1))])
    assert seqs(index, 1) == [9, 12, 13]
    assert seqs(index, 1, k=2) == [9, 12]


def test_an_index_grows_past_its_first_capacity() -> None:
    index = Index("m", 2, "reference")
    for first in range(1, 5001, 500):
        index.apply([change(seq, None, code(seq % 16)) for seq in range(first, first + 500)])
    assert len(index) == 5000
    assert seqs(index, 3, k=1000)[:313] == [s for s in range(1, 5001) if s % 16 == 3]


def test_removing_a_seq_that_was_never_loaded_changes_nothing() -> None:
    index = Index("m", 2, "reference")
    index.apply([change(9, 2, code(1)), change(10, 99, None)])
    assert seqs(index, 1) == [9]


def test_a_checksum_covers_live_codes_and_their_seqs() -> None:
    pairs = [(seq, code(seq % 16)) for seq in range(1, 200_000, 3)]
    index = loaded(pairs[:1000], pairs[1000:])
    assert index.checksum() == checksum([pairs])
    index.apply([change(300_000, 4, None)])
    assert index.checksum() == checksum([[pair for pair in pairs if pair[0] != 4]])
    assert index.checksum() != checksum([pairs])
    assert Index("m", 2, "reference").checksum() == checksum([])


def test_compacting_is_worth_it_when_most_rows_are_gone() -> None:
    index = loaded([(seq, code(1)) for seq in range(1, 300_001)])
    index.apply([change(400_000 + seq, seq, None) for seq in range(1, 150_001)])
    assert not index.worth_compacting
    index.apply([change(900_000, 200_000, None)])
    assert index.worth_compacting


def test_an_add_that_fails_leaves_rows_and_seqs_in_step() -> None:
    index = Index("m", 2, "reference")
    with pytest.raises(ValueError, match="reshape"):
        index.apply([change(1, None, b"too long")])
    index.apply([change(2, None, code(1))])
    assert seqs(index, 1) == [2]


def test_changes_whose_codes_could_not_be_added_can_be_applied_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = loaded([(1, code(1)), (2, code(2))])
    changes = [change(3, None, code(3)), change(4, None, code(4))]

    def full(_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(index._scanner, "add", full)
        with pytest.raises(MemoryError):
            index.apply(changes)
    index.apply([*changes, change(5, 3, code(5))])
    assert [seqs(index, n, 1) for n in (1, 2, 4, 5)] == [[1], [2], [4], [5]]
    assert len(index) == 4
