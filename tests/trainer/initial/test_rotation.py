import pytest
import torch

from gpq.model.codebook import Codebook
from trainer.initial.rotation import Differences, _divided, learn


def features(n: int = 3000, E: int = 48) -> torch.Tensor:
    """Returns unit vectors (N,E) in a random position, whose variances fall from 1 to 1/E²."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(n, E, generator=generator) / torch.arange(1, E + 1)
    turn, _ = torch.linalg.qr(torch.randn(E, E, generator=generator))
    return torch.nn.functional.normalize(spread @ turn + 0.1, dim=1)


def test_groups_have_orthogonal_subspaces_and_the_first_has_half_of_the_strongest() -> None:
    variances = torch.arange(32, 0, -1.0)
    bases = _divided(variances, 4, [2, 2, 4])
    whole = torch.cat(bases, dim=1)
    assert [basis.shape for basis in bases] == [(32, 8), (32, 8), (32, 16)]
    assert torch.allclose(whole.T @ whole, torch.eye(32), atol=1e-6)
    assert (bases[0] ** 2).sum(dim=1).tolist() == pytest.approx([0.5] * 16 + [0] * 16)
    with pytest.raises(ValueError, match="at most half"):
        _divided(variances, 4, [5, 3])


def test_codes_keep_neighbours_and_longer_codes_keep_more() -> None:
    x = features()
    found = learn(x[:2500], 8, 6, [2, 2, 4], 8, seed=0)
    assert found.W.shape == (48, 48) and found.words.shape == (8, 16, 6)
    assert torch.allclose(found.words.norm(dim=2), torch.ones(8, 16))
    raw = ((x - found.mean) @ found.W.T).numpy()
    queries = x[2500:] - found.mean
    wanted = torch.nn.functional.normalize(queries, dim=1)
    cosines = wanted @ wanted.T
    agreed = []
    for M in (2, 4, 8):
        codebook = Codebook(found.words.numpy()).first(M)
        lut = torch.from_numpy(codebook.lut(raw[2500:, : 6 * M]))
        codes = torch.from_numpy(codebook.encode(raw[2500:, : 6 * M])).long()
        scores = sum(lut[:, m][:, codes[:, m]] for m in range(M))
        both = torch.stack([torch.as_tensor(scores).flatten(), cosines.flatten()])
        agreed.append(float(torch.corrcoef(both)[0, 1]))
    assert agreed[0] < agreed[1] < agreed[2] and agreed[2] > 0.8


def test_the_same_seed_gives_the_same_projection() -> None:
    x = features(500)
    first, second, other = (learn(x, 4, 6, [4], 2, seed) for seed in (1, 1, 2))
    assert torch.equal(first.W, second.W) and torch.equal(first.words, second.words)
    assert not torch.equal(first.W, other.W)


def test_components_in_which_classes_or_kinds_differ_are_kept() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(600, 32, generator=generator) / torch.arange(1, 33)
    kinds = torch.arange(600) % 2
    weak = 30  # where the features hardly vary, but both kinds and classes differ
    x[:, weak] = 0.02 * (2.0 * kinds - 1)
    classifier = torch.zeros(2, 32)
    classifier[0, weak], classifier[1, weak] = 1, -1

    def kept(differences: Differences | None) -> float:
        found = learn(x, 2, 4, [2], 2, 0, differences)
        return float(found.W[:, weak].norm() / found.W.norm())

    assert kept(None) < 0.1
    assert kept(Differences(classifier=classifier)) > 0.5
    assert kept(Differences(kinds=kinds)) > 0.5
