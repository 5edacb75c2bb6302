"""Compares the codebook with the same formulas in torch, and tests what searches rely on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from gpq.model.codebook import (
    LIKE,
    SCORES,
    SURE,
    Codebook,
    Score,
    intra_normalise,
    pack,
    sign_words,
    unpack,
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def unit(*shape: int, seed: int = 0) -> np.ndarray:
    vectors = normal(*shape, seed=seed)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def codebook(M: int = 3, d: int = 12) -> Codebook:
    return Codebook(unit(M, 16, d, seed=M))


class Oracle:
    """The formulas of a codebook in torch, with one sum over all axes each."""

    def __init__(self, book: Codebook) -> None:
        self.M = book.M
        self.Z, self.means, self.classes = (
            None if array is None else torch.tensor(array)
            for array in (book.Z, book.means, book.classes)
        )

    def x(self, features: np.ndarray) -> torch.Tensor:
        split = torch.tensor(features).view(len(features), self.M, self.Z.shape[2])
        return functional.normalize(split, dim=-1)

    def cosines(self, features: np.ndarray) -> torch.Tensor:
        return torch.einsum("bmd,mkd->bmk", self.x(features), self.Z)

    def margin(self, features: np.ndarray) -> torch.Tensor:
        best = self.cosines(features).topk(2, dim=-1).values
        return (best[..., 0] - best[..., 1]).amin(dim=-1)

    def expanded(self, x: torch.Tensor) -> torch.Tensor:
        if self.classes is None:
            return x
        directions = functional.normalize(self.classes, dim=-1)
        likeness = torch.einsum("bmd,mld->bl", x, directions) / self.M
        none = torch.full((len(x), 1), LIKE)
        p = torch.softmax(SURE * torch.cat([likeness, none], dim=1), dim=1)[:, :-1]
        steps = self.classes.transpose(0, 1)[None] - x[:, None]
        return x + torch.einsum("bl,blmd->bmd", p, steps) / 2

    def lut(self, features: np.ndarray) -> torch.Tensor:
        words = self.Z if self.means is None else self.means
        return torch.einsum("bmd,mkd->bmk", self.expanded(self.x(features)), words) / self.M

    def means_of(self, features: np.ndarray) -> torch.Tensor:
        x, codes = self.x(features).double(), self.cosines(features).argmax(dim=-1)
        means = self.Z.double()
        for m in range(self.M):
            for k in range(16):
                members = torch.cat([means[m, k][None], x[codes[:, m] == k, m]])
                means[m, k] = members.mean(dim=0)
        return means


@settings(deadline=None)
@given(
    st.sampled_from([1, 2, 7, 64]),
    st.integers(1, 13),
    st.sampled_from([None, 0, 1, 10, 100]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_values_are_those_of_the_same_formulas_in_torch(
    B: int, M: int, L: int | None, with_means: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)

    def vectors(*shape: int) -> np.ndarray:
        return unit(*shape, seed=seed) * random.random(shape[:2], dtype=np.float32)[..., None]

    means = vectors(M, 16, 12) if with_means else None
    classes = None if L is None else vectors(M, L, 12)
    book = Codebook(unit(M, 16, 12, seed=seed), means, classes)
    features = 10 * random.standard_normal((B, 12 * M), dtype=np.float32)
    if L and seed % 2:  # queries that are expanded
        features[0] = classes[:, 0].ravel() + 0.01 * features[0]
    oracle = Oracle(book)
    x = intra_normalise(features, M)
    found = {
        "x": (x, oracle.x(features)),
        "margin": (book.margin(features), oracle.margin(features)),
        "expanded": (book.expanded(x), oracle.expanded(oracle.x(features))),
        "lut": (book.lut(features), oracle.lut(features)),
        "means_of": (book.means_of(features), oracle.means_of(features)),
    }
    for name, (ours, theirs) in found.items():
        assert ours.dtype == np.float32, name
        assert ours.shape == theirs.shape, name
        assert np.abs(ours - theirs.numpy()).max(initial=0) < 1e-6, name
    codes = book.encode(features)
    assert codes.dtype == np.uint8
    sure = book.margin(features) > 1e-6
    assert (codes == oracle.cosines(features).argmax(dim=-1).numpy())[sure].all()
    assert book.decode(codes).dtype == np.float32
    assert book.lut(features).flags.c_contiguous


def test_no_features_make_no_codes_and_no_tables() -> None:
    book = Codebook(codebook().Z, classes=unit(3, 4, 12))
    none = np.empty((0, 36), dtype=np.float32)
    assert book.encode(none).shape == (0, 3)
    assert book.decode(book.encode(none)).shape == (0, 36)
    assert book.lut(none).shape == (0, 3, 16)
    assert book.margin(none).shape == (0,)
    assert np.allclose(book.means_of(none), book.Z)


def test_every_sub_vector_has_unit_length() -> None:
    x = intra_normalise(normal(5, 36), 3)
    assert x.shape == (5, 3, 12)
    assert np.allclose(np.linalg.norm(x, axis=-1), 1)


def test_a_sub_vector_of_zeros_stays_zero() -> None:
    features = np.zeros((1, 36), dtype=np.float32)
    features[0, 12:24] = 1e-20
    expected = functional.normalize(torch.tensor(features).view(1, 3, 12), dim=-1).numpy()
    assert (intra_normalise(features, 3) == expected).all()
    assert (codebook().lut(features)[0, 0] == 0).all()


@settings(deadline=None)
@given(st.integers(1, 13), st.integers(0, 9), st.randoms(use_true_random=False))
def test_unpack_inverts_pack(M: int, n: int, random: object) -> None:
    seed = random.randrange(2**31)  # type: ignore[attr-defined]
    codes = np.random.default_rng(seed).integers(0, 16, (n, M), dtype=np.uint8)
    packed = pack(codes)
    assert packed.shape == (n, (M + 1) // 2)
    assert packed.dtype == np.uint8
    assert unpack(packed, M).dtype == np.uint8
    assert (unpack(packed, M) == codes).all()


def test_the_low_nibble_is_the_even_sub_code() -> None:
    codes = np.array([[1, 2, 3]], dtype=np.uint8)
    assert pack(codes).tolist() == [[0x21, 0x03]]
    assert codes.tolist() == [[1, 2, 3]]


def test_encode_finds_the_nearest_codeword() -> None:
    book = codebook()
    features = normal(20, 36)
    codes = book.encode(features)
    for b in range(20):
        for m in range(3):
            sub = features[b, 12 * m : 12 * (m + 1)]
            cosines = [float(sub @ z / np.linalg.norm(sub)) for z in book.Z[m]]
            assert codes[b, m] == int(np.argmax(cosines))


def test_codewords_encode_to_themselves() -> None:
    book = codebook()
    codes = np.random.default_rng(0).integers(0, 16, (7, 3), dtype=np.uint8)
    assert (book.encode(book.decode(codes)) == codes).all()


def test_lut_sums_to_the_mean_cosine() -> None:
    book = codebook()
    features = normal(4, 36)
    codes = np.random.default_rng(0).integers(0, 16, (6, 3), dtype=np.uint8)
    lut = book.lut(features)
    assert lut.shape == (4, 3, 16)
    x = intra_normalise(features, 3)
    decoded = book.decode(codes).reshape(6, 3, 12)
    expected = np.einsum("qmd,nmd->qn", x, decoded) / 3
    scores = sum(lut[:, m][:, codes[:, m]] for m in range(3))
    assert np.allclose(scores, expected, atol=1e-6)
    own = book.lut(book.decode(codes))
    best = sum(own[np.arange(6), m, codes[:, m]] for m in range(3))
    assert np.allclose(best, 1, atol=1e-6)


def test_margin_is_the_lead_of_the_best_codeword() -> None:
    Z = np.zeros((1, 16, 12), dtype=np.float32)
    Z[0, np.arange(12), np.arange(12)] = 1
    Z[0, 12:, 0] = -1
    features = np.zeros((1, 12), dtype=np.float32)
    features[0, :2] = 0.8, 0.6
    assert Codebook(Z).margin(features).tolist() == pytest.approx([0.2])


def test_means_are_of_the_sub_vectors_with_a_code_and_of_the_codeword() -> None:
    book = codebook()
    features = normal(5000, 36)
    means = book.means_of(features)
    x, codes = intra_normalise(features, 3), book.encode(features)
    for m, k in ((0, 0), (1, 7), (2, 15)):
        own = x[codes[:, m] == k, m]
        assert np.allclose(means[m, k], (own.sum(axis=0) + book.Z[m, k]) / (len(own) + 1))


def test_with_means_a_score_is_the_mean_cosine_with_the_features_of_a_code() -> None:
    plain = codebook()
    features, query = normal(20_000, 36), normal(1, 36, seed=1)
    book = Codebook(plain.Z, plain.means_of(features))
    codes = book.encode(features)
    assert (codes == plain.encode(features)).all()
    cosines = intra_normalise(features, 3)[:, 1] @ intra_normalise(query, 3)[0, 1]
    same = codes[:, 1] == 4
    assert book.lut(query)[0, 1, 4] * 3 == pytest.approx(cosines[same].mean(), abs=1e-3)
    assert np.abs(book.lut(query)).max() * 3 <= 1
    short = book.first(2).lut(query[:, :24])
    assert np.allclose(short * 2, book.lut(query)[:, :2] * 3)


def test_a_query_is_moved_halfway_to_the_class_it_is_like() -> None:
    classes = np.float32(0.9) * unit(3, 4, 12)
    book = Codebook(codebook().Z, classes=classes)
    near = classes[:, 2] + 0.03 * normal(3, 12, seed=1)
    x = (near / np.linalg.norm(near, axis=-1, keepdims=True))[None]
    assert np.allclose(book.expanded(x)[0], (x[0] + classes[:, 2]) / 2, atol=1e-3)
    expected = np.einsum("bmd,mkd->bmk", book.expanded(x), book.Z) / 3
    assert np.allclose(book.lut(x.reshape(1, 36)), expected, atol=1e-6)


def test_a_query_like_no_class_stays_as_it_is() -> None:
    classes = unit(3, 4, 12)
    book = Codebook(codebook().Z, classes=classes)
    x = unit(50, 3, 12, seed=1)
    likeness = np.einsum("bmd,mld->bl", x, classes).max(axis=1) / 3
    unlike = x[likeness < 0.4]
    assert len(unlike) > 20
    assert np.allclose(book.expanded(unlike), unlike, atol=1e-3)


def test_between_two_classes_a_query_is_moved_towards_both() -> None:
    axes = np.eye(12, dtype=np.float32)
    classes = np.stack([axes[0], np.float32(0.8) * axes[1]])[None]
    book = Codebook(codebook(1).Z, classes=classes)
    x = ((axes[0] + axes[1]) / np.sqrt(np.float32(2)))[None, None]
    found = book.expanded(x)[0, 0]
    like, none = np.exp(32 * float(x[0, 0, 0])), np.exp(32 * 0.75)
    p = like / (2 * like + none)
    kept = 1 - (2 * p) / 2
    wanted = kept * x[0, 0, 0] + p / 2 * np.array([1.0, 0.8])
    assert found[:2].tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
    assert np.abs(found[2:]).max() == 0


def test_shorter_codes_are_searched_by_the_same_classes() -> None:
    classes = unit(3, 4, 12)
    book = Codebook(codebook().Z, classes=classes)
    near = classes[:, 1] + 0.1 * normal(3, 12, seed=1)
    x = (near / np.linalg.norm(near, axis=-1, keepdims=True))[None]
    short = Codebook(book.Z[:2], classes=classes[:2])
    features = x[:, :2].reshape(1, 24)
    assert (book.first(2).lut(features) == short.lut(features)).all()
    assert not (short.expanded(x[:, :2]) == x[:, :2]).all()


def of_score(score: Score, M: int = 3, d: int = 5) -> Codebook:
    if score == "hamming":
        return Codebook(sign_words(M), score=score)
    words = unit if score == "cosine" else normal
    return Codebook(words(M, 16, d, seed=M), score=score)


@pytest.mark.parametrize("score", ["l2", "dot"])
def test_words_of_any_length_are_compared_by_their_distance(score: Score) -> None:
    book, x = of_score(score), normal(20, 15)
    codes = book.encode(x)
    parts = x.reshape(20, 3, 1, 5)
    distances = ((parts - book.Z) ** 2).sum(axis=-1)
    assert (codes == distances.argmin(axis=-1)).all()
    centred = book.Z - book.Z.mean(axis=1, keepdims=True)
    lengths = (centred**2).sum(axis=-1).max(axis=1)
    two = np.sort(distances, axis=-1)[..., :2]
    margins = ((two[..., 1] - two[..., 0]) / 2 / lengths).min(axis=1)
    assert np.allclose(book.margin(x), margins, atol=1e-5)


def test_the_score_of_the_squared_distance_is_the_cosine_of_unit_vectors() -> None:
    book = of_score("l2")
    x, codes = unit(20, 15), book.encode(normal(4, 15, seed=1))
    scores = book.lut(x)[:, np.arange(3), codes].sum(axis=-1)
    decoded = book.decode(codes)
    distances = ((x[:, None] - decoded) ** 2).sum(axis=-1)
    assert scores.shape == (20, 4)
    assert np.allclose(scores, 1 - distances / 2, atol=1e-5)
    of_itself = book.lut(decoded)[np.arange(4), np.arange(3)[:, None], codes.T].sum(axis=0)
    assert np.allclose(of_itself, 1, atol=1e-5)


def test_the_score_of_the_inner_product() -> None:
    book = of_score("dot")
    x, codes = normal(20, 15), book.encode(normal(4, 15, seed=1))
    scores = book.lut(x)[:, np.arange(3), codes].sum(axis=-1)
    assert np.allclose(scores, x @ book.decode(codes).T, atol=1e-5)


def test_bits_of_a_hamming_code_are_the_signs_of_features() -> None:
    book = of_score("hamming")
    x = normal(50, 12)
    bits = (book.encode(x)[:, :, None] >> np.arange(4)) & 1
    assert (bits.reshape(50, 12) == (x > 0)).all()
    assert book.Z.shape == (3, 16, 4) and np.allclose(np.linalg.norm(book.Z, axis=-1), 1)


@pytest.mark.parametrize("M", [1, 2, 3, 6, 7, 12, 13, 32, 64])
def test_codes_at_the_same_hamming_distance_have_exactly_the_same_score(M: int) -> None:
    book = of_score("hamming", M)
    x = normal(300, 4 * M, seed=M)
    codes = book.encode(x)
    table = book.lut(x[:1])[0]
    scores = np.zeros(300, dtype=np.float32)
    for m in range(M):
        scores += table[m, codes[:, m]]
    differing = ((x > 0) != (x[0] > 0)).sum(axis=1)
    for distance in np.unique(differing):
        assert len(set(scores[differing == distance].tolist())) == 1
    assert np.allclose(scores, 1 - differing / (2 * M), atol=1e-5)
    assert scores[0] == scores.max() >= 1
    near = differing <= 2 * M
    assert (scores[near].astype(np.float64) >= 1 - differing[near] / (2 * M)).all()


def test_distances_between_vectors_far_from_zero_keep_their_digits() -> None:
    near = of_score("l2", 12, 12)
    far = Codebook(near.Z + 1000, score="l2")
    x = normal(50, 144)
    assert (far.encode(x + 1000) == near.encode(x)).mean() > 0.999
    assert np.allclose(far.lut(x + 1000), near.lut(x), atol=0.01)
    assert np.allclose(far.margin(x + 1000), near.margin(x), atol=1e-3)


@pytest.mark.parametrize("score", SCORES)
def test_a_stored_code_takes_the_place_of_its_features(score: Score) -> None:
    book = of_score(score)
    codes = book.encode(normal(7, book.D))
    assert (book.encode(book.decode(codes)) == codes).all()
    shorter = book.first(2)
    assert shorter.score == score
    assert (shorter.encode(book.decode(codes)[:, : shorter.D]) == codes[:, :2]).all()
