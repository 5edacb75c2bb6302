"""Tests of searches among hashes, compared with all pairs."""

import numpy as np
import pytest

from gpq.pixels.perceptual import HASH_BYTES, turned
from service.copies import groups as module
from service.copies.groups import Families, groups
from service.copies.hashes import CODEBOOKS, distance_tables, nearest_turn
from service.copies.index import nearest, within
from service.index.index import Codes, Index


def near(hash: bytes, bits: int, random: np.random.Generator) -> bytes:
    """Changes some bits of a hash."""
    found = np.unpackbits(np.frombuffer(hash, np.uint8))
    found[random.choice(len(found), bits, replace=False)] ^= 1
    return np.packbits(found).tobytes()


def catalogue(random: np.random.Generator) -> np.ndarray:
    """Returns hashes of which some are near others, turned, the same, or joined in a chain."""
    hashes = [random.bytes(HASH_BYTES) for _ in range(60)]
    for n in range(0, 30, 3):
        hashes.append(near(hashes[n], 1 + n, random))
        hashes.append(turned(near(hashes[n], 5, random))[n % 8])
    hashes += [hashes[1]] * 5
    for _ in range(6):
        hashes.append(near(hashes[-1], 25, random))
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, HASH_BYTES)


def distance(one: np.ndarray, other: np.ndarray) -> int:
    return min(
        int(np.bitwise_count(np.frombuffer(turn, np.uint8) ^ other).sum())
        for turn in turned(one.tobytes())
    )


@pytest.mark.parametrize("most", [31, 10, 0])
def test_groups_are_those_of_all_pairs(most: int) -> None:
    hashes = catalogue(np.random.default_rng(3))
    seqs = [5 * n + 2 for n in range(len(hashes))]
    families = Families(len(hashes))
    for n in range(len(hashes)):
        for m in range(n):
            if distance(hashes[n], hashes[m]) <= most:
                families.join(n, m)
    expected: dict[int, set[int]] = {}
    for n in range(len(hashes)):
        expected.setdefault(seqs[families.first(n)], set()).add(seqs[n])
    expected = {first: group for first, group in expected.items() if len(group) > 1}
    compared: list[int] = []
    found: dict[int, set[int]] = {}
    for first, seq in groups(seqs, hashes, most, "native", lambda n: not compared.append(n)):
        found.setdefault(first, set()).add(seq)
    assert found == expected
    assert sum(compared) == len(hashes)


def test_a_search_can_be_stopped() -> None:
    hashes = catalogue(np.random.default_rng(4))
    assert groups(range(len(hashes)), hashes, 31, "native", lambda n: False) == []


def test_a_hash_finds_all_that_are_within_a_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    first = random.bytes(HASH_BYTES)
    others = [near(first, n % 40, random) for n in range(300)] + [random.bytes(HASH_BYTES)] * 9
    packed = np.frombuffer(b"".join(others), np.uint8).reshape(-1, HASH_BYTES)
    index = Index("x", CODEBOOKS, "native", Codes(np.arange(1, len(others) + 1), packed))
    found, complete = within(index, distance_tables(first), 31, 10_000)
    assert complete
    expected = {n + 1: n % 40 for n in range(300) if n % 40 <= 31}
    best = nearest(found)
    assert {number: far for number, (far, _) in best.items()} == expected
    assert {turn for _, turn in best.values()} == {0}
    assert found[0] == sorted(found[0], key=lambda hit: (hit[1], hit[0]))
    found, complete = within(index, distance_tables(first), 31, 50)
    assert not complete
    assert len(found[0]) == 50
    turned_others = [turned(each)[0] for each in others[:40]]
    distances, turns = nearest_turn(first, turned_others)
    assert distances.tolist() == [n % 40 for n in range(40)]
    assert set(turns.tolist()) == {0}


def test_groups_of_more_images_than_a_search_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NEIGHBOURS", 8)
    random = np.random.default_rng(6)
    first = random.bytes(HASH_BYTES)
    hashes = [near(first, n % 12, random) for n in range(100)] + [first] * 100
    packed = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, HASH_BYTES)
    found = groups(range(200), packed, 31, "native", lambda n: True)
    assert {seq for _, seq in found} == set(range(200))
    assert {each[0] for each in found} == {0}


def test_the_nearest_turn_of_a_hash() -> None:
    random = np.random.default_rng(7)
    first = random.bytes(HASH_BYTES)
    others = [near(turned(first)[n], 3 * n, random) for n in range(8)]
    distances, turns = nearest_turn(first, others)
    assert (distances.tolist(), turns.tolist()) == ([3 * n for n in range(8)], [*range(8)])
