import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpq.model.codebook import Codebook, intra_normalise, pack, unpack


def codebook(M: int = 3, d: int = 12) -> Codebook:
    generator = torch.Generator().manual_seed(M)
    Z = torch.nn.functional.normalize(torch.randn(M, 16, d, generator=generator), dim=-1)
    return Codebook(Z)


def test_every_sub_vector_has_unit_length() -> None:
    x = intra_normalise(torch.randn(5, 36), 3)
    assert x.shape == (5, 3, 12)
    assert torch.allclose(x.norm(dim=-1), torch.ones(5, 3))


@given(st.integers(1, 13), st.integers(0, 9), st.randoms(use_true_random=False))
def test_unpack_inverts_pack(M: int, n: int, random: object) -> None:
    seed = random.randrange(2**31)  # type: ignore[attr-defined]
    codes = torch.from_numpy(np.random.default_rng(seed).integers(0, 16, (n, M), dtype=np.uint8))
    packed = pack(codes)
    assert packed.shape == (n, (M + 1) // 2)
    assert packed.dtype == torch.uint8
    assert torch.equal(unpack(packed, M), codes)


def test_the_low_nibble_is_the_even_sub_code() -> None:
    assert pack(torch.tensor([[1, 2, 3]], dtype=torch.uint8)).tolist() == [[0x21, 0x03]]


def test_encode_finds_the_nearest_codeword() -> None:
    book = codebook()
    features = torch.randn(20, 36)
    codes = book.encode(features)
    for b in range(20):
        for m in range(3):
            sub = features[b, 12 * m : 12 * (m + 1)]
            cosines = [float(sub @ z / sub.norm()) for z in book.Z[m]]
            assert codes[b, m] == int(np.argmax(cosines))


def test_codewords_encode_to_themselves() -> None:
    book = codebook()
    codes = torch.randint(0, 16, (7, 3), dtype=torch.uint8)
    assert torch.equal(book.encode(book.decode(codes)), codes)


def test_lut_sums_to_the_mean_cosine() -> None:
    book = codebook()
    features = torch.randn(4, 36)
    codes = torch.randint(0, 16, (6, 3), dtype=torch.uint8)
    lut = book.lut(features)
    assert lut.shape == (4, 3, 16)
    x = intra_normalise(features, 3)
    decoded = book.decode(codes).view(6, 3, 12)
    expected = torch.einsum("qmd,nmd->qn", x, decoded) / 3
    scores = sum(lut[:, m][:, codes[:, m].long()] for m in range(3))
    assert torch.allclose(scores, expected, atol=1e-6)
    own = book.lut(book.decode(codes))
    best = sum(own[torch.arange(6), m, codes[:, m].long()] for m in range(3))
    assert torch.allclose(best, torch.ones(6), atol=1e-6)


def test_margin_is_the_lead_of_the_best_codeword() -> None:
    Z = torch.zeros(1, 16, 12)
    Z[0, torch.arange(12), torch.arange(12)] = 1
    Z[0, 12:, 0] = -1
    features = torch.zeros(1, 12)
    features[0, :2] = torch.tensor([0.8, 0.6])
    assert Codebook(Z).margin(features).item() == pytest.approx(0.2)


def test_means_are_of_the_sub_vectors_with_a_code_and_of_the_codeword() -> None:
    torch.manual_seed(0)
    book = codebook()
    features = torch.randn(5000, 36)
    means = book.means_of(features)
    x, codes = intra_normalise(features, 3), book.encode(features)
    for m, k in ((0, 0), (1, 7), (2, 15)):
        own = x[codes[:, m] == k, m]
        assert torch.allclose(means[m, k], (own.sum(dim=0) + book.Z[m, k]) / (len(own) + 1))


def test_with_means_a_score_is_the_mean_cosine_with_the_features_of_a_code() -> None:
    torch.manual_seed(0)
    plain = codebook()
    features, query = torch.randn(20_000, 36), torch.randn(1, 36)
    book = Codebook(plain.Z, plain.means_of(features))
    codes = book.encode(features)
    assert torch.equal(codes, plain.encode(features))
    cosines = intra_normalise(features, 3)[:, 1] @ intra_normalise(query, 3)[0, 1]
    same = codes[:, 1] == 4
    assert book.lut(query)[0, 1, 4] * 3 == pytest.approx(cosines[same].mean().item(), abs=1e-3)
    assert book.lut(query).abs().max() * 3 <= 1
    short = book.first(2).lut(query[:, :24])
    assert torch.allclose(short * 2, book.lut(query)[:, :2] * 3)


def test_a_query_is_moved_halfway_to_the_class_it_is_like() -> None:
    torch.manual_seed(0)
    classes = 0.9 * torch.nn.functional.normalize(torch.randn(3, 4, 12), dim=-1)
    book = Codebook(codebook().Z, classes=classes)
    x = torch.nn.functional.normalize(classes[:, 2] + 0.03 * torch.randn(3, 12), dim=-1)[None]
    assert torch.allclose(book.expanded(x)[0], (x[0] + classes[:, 2]) / 2, atol=1e-3)
    expected = torch.einsum("bmd,mkd->bmk", book.expanded(x), book.Z) / 3
    assert torch.allclose(book.lut(x.flatten(1)), expected, atol=1e-6)


def test_a_query_like_no_class_stays_as_it_is() -> None:
    torch.manual_seed(0)
    classes = torch.nn.functional.normalize(torch.randn(3, 4, 12), dim=-1)
    book = Codebook(codebook().Z, classes=classes)
    x = torch.nn.functional.normalize(torch.randn(50, 3, 12), dim=-1)
    likeness = torch.einsum("bmd,mld->bl", x, classes).amax(dim=1) / 3
    unlike = x[likeness < 0.4]
    assert len(unlike) > 20
    assert torch.allclose(book.expanded(unlike), unlike, atol=1e-3)


def test_between_two_classes_a_query_is_moved_towards_both() -> None:
    classes = torch.eye(12)[None, :2] * torch.tensor([1.0, 0.8])[None, :, None]
    book = Codebook(codebook(1).Z, classes=classes)
    x = torch.nn.functional.normalize(torch.eye(12)[:1] * 2 + torch.eye(12)[1:2] * 2, dim=-1)[None]
    found = book.expanded(x)[0, 0]
    like, none = np.exp(32 * x[0, 0, 0].item()), np.exp(32 * 0.75)
    p = like / (2 * like + none)
    kept = 1 - (2 * p) / 2
    wanted = kept * x[0, 0, 0].item() + p / 2 * np.array([1.0, 0.8])
    assert found[:2].tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
    assert found[2:].abs().max() == 0


def test_shorter_codes_are_searched_by_the_same_classes() -> None:
    torch.manual_seed(0)
    classes = torch.nn.functional.normalize(torch.randn(3, 4, 12), dim=-1)
    book = Codebook(codebook().Z, classes=classes)
    x = torch.nn.functional.normalize(classes[:, 1] + 0.1 * torch.randn(3, 12), dim=-1)[None]
    short = Codebook(book.Z[:2], classes=classes[:2])
    assert torch.equal(book.first(2).lut(x[:, :2].flatten(1)), short.lut(x[:, :2].flatten(1)))
    assert not torch.equal(short.expanded(x[:, :2]), x[:, :2])
