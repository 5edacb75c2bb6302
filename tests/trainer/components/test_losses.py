"""Tests each loss on a case worked by hand, and the signs of the reversal and of updates."""

import math

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from trainer.components import losses
from trainer.components.assignment import soft_assign

X = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # B = 2, M = 1, d = 2


def similarity_of(*classes: int) -> torch.Tensor:
    return losses.class_similarity(one_hot(torch.tensor(classes)))


def test_npair_of_two_classes() -> None:
    # logits are the identity: -log(e / (e + 1)) for both rows
    loss = losses.npair(X, X, similarity_of(0, 1))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_npair_of_one_class_spreads_its_target() -> None:
    # targets (½, ½): the mean of log(1 + e⁻¹) and 1 + log(1 + e⁻¹)
    loss = losses.npair(X, X, similarity_of(3, 3))
    assert loss.item() == pytest.approx(0.5 + math.log(1 + math.exp(-1)))


def test_npair_logits_are_the_cosine_times_m() -> None:
    x = X.repeat(1, 3, 1)
    loss = losses.npair(x, x, torch.eye(2))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-3)))


def test_npair_weights_count_as_rows_and_as_targets() -> None:
    # A third image of class 1 with hardly any weight only adds a row to the mean.
    x = torch.cat([X, X[1:]])
    similarity = similarity_of(0, 1, 0)
    weight = torch.tensor([1.0, 1.0, 1e-9])
    # Row 0: log(e + 2); row 1: log(2e + 1) - 1; row 2 does not count.
    expected = (math.log(math.e + 2) - 1 + math.log(2 * math.e + 1) - 1) / 3
    assert losses.npair(x, x, similarity, weight).item() == pytest.approx(expected)


def test_triplet_by_hand() -> None:
    # Cosines 1 to itself and 0 to the other class: the margin is kept everywhere.
    assert losses.triplet(X, X, similarity_of(0, 1)) == 0
    # Anchor 0 has positives 0 (cosine 1) and 1 (cosine 0), negative 2 (cosine 0): 0 and 0.1;
    # anchor 1 the same with negative 2 (cosine 1): 0.1 and 1.1; anchor 2 negatives 0, 1: 0, 0.1.
    x = torch.cat([X, X[1:]])
    expected = (0 + 0.1 + 1.1 + 0.1 + 0 + 0.1) / 6
    assert losses.triplet(x, x, similarity_of(0, 0, 1)).item() == pytest.approx(expected)


def test_two_views_by_hand() -> None:
    # features are codewords, and three equal sub-spaces: logits are the identity / 0.5
    x = X.repeat(1, 3, 1)
    words = torch.eye(2).repeat(3, 1, 1)
    loss = losses.two_views(x, x, words, 0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-5)


def test_two_views_draw_features_away_from_a_codeword_that_all_have() -> None:
    words = torch.eye(4)[None]
    taught = torch.eye(4)[:, None]
    seen = torch.eye(4)[:1].repeat(4, 1)[:, None].requires_grad_()
    losses.two_views(seen, taught, words, 0.1).backward()
    towards_own = -(seen.grad * taught).sum(dim=(1, 2))
    assert (towards_own[1:] > 0.1).all()


PREFIXES = (3, 6, 8)


def test_nested_logits_are_means_over_the_first_sub_spaces() -> None:
    x, C = normalize(torch.randn(7, 8, 12), dim=-1), torch.randn(8, 5, 12)
    each = losses.prototype_logits(x, C)
    wanted = torch.stack([each[:, :p].mean(dim=1) for p in PREFIXES], dim=1)
    assert torch.allclose(losses.nested_logits(x, C, PREFIXES), wanted, atol=1e-5)


def test_nested_npair_is_the_mean_over_the_first_sub_spaces() -> None:
    torch.manual_seed(0)
    x, q = (normalize(torch.randn(7, 8, 12), dim=-1) for _ in range(2))
    similarity, weight = torch.rand(7, 7) + 0.1, torch.rand(7)
    each = [losses.npair(x[:, :p], q[:, :p], similarity, weight) for p in PREFIXES]
    found = losses.nested_npair(x, q, similarity, PREFIXES, weight)
    assert found.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-5)


def test_similarity_counts_the_classes_shared() -> None:
    assert similarity_of(1, 2, 1).tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    labels = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 1, 1]], dtype=torch.uint8)
    assert losses.class_similarity(labels).tolist() == [[2, 1, 2], [1, 2, 2], [2, 2, 3]]
    assert losses.class_target(labels)[0].tolist() == [0.5, 0.5, 0]


def test_classification_of_two_classes_at_once() -> None:
    # logits 0, 0: half of log 2 for each of two equal targets
    loss = losses.classification(torch.zeros(1, 3, 2), torch.tensor([[0.5, 0.5]]), averaged=False)
    assert loss.tolist() == pytest.approx([math.log(2)])


# One sample, M = 2 sub-spaces that disagree between L = 2 classes: logits 16, 0 and 0, 16.
DISAGREEING = losses.prototype_logits(
    torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]),
    torch.tensor([[[5.0, 0.0], [0.0, 5.0]], [[5.0, 0.0], [0.0, 5.0]]]),
)


def test_prototype_logits_scale_by_beta_squared() -> None:
    assert DISAGREEING.tolist() == [[[16, 0], [0, 16]]]


def test_classification_averages_logits_or_losses() -> None:
    target = torch.tensor([[1.0, 0.0]])
    averaged = losses.classification(DISAGREEING, target, averaged=True)
    assert averaged.tolist() == pytest.approx([math.log(2)])
    per_subspace = losses.classification(DISAGREEING, target, averaged=False)
    assert per_subspace.tolist() == pytest.approx([8.0], abs=1e-5)


def test_entropy_averages_logits_or_entropies() -> None:
    averaged = losses.entropy(DISAGREEING, averaged=True)
    assert averaged.item() == pytest.approx(-math.log(0.5 + 1e-5))
    assert losses.entropy(DISAGREEING, averaged=False).item() == pytest.approx(0, abs=2e-5)
    even = torch.zeros(3, 2, 4)
    assert losses.entropy(even, averaged=False).item() == pytest.approx(math.log(4), abs=1e-4)


def game() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(8, 2, 4, generator=generator)
    C = torch.randn(2, 3, 4, generator=generator)
    return raw.requires_grad_(), C.requires_grad_()


def entropy_of(raw: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
    logits = losses.prototype_logits(normalize(raw, dim=-1), C, beta=1.0)
    return losses.entropy(logits, averaged=True)


def test_reversal_lets_the_network_lower_entropy_and_the_classifier_raise_it() -> None:
    raw, C = game()
    before = entropy_of(raw, C).item()
    total = -0.1 * entropy_of(losses.reverse_gradient(raw), C)
    raw_step, C_step = torch.autograd.grad(total, [raw, C])
    assert entropy_of(raw - 0.1 * raw_step / raw_step.norm(), C).item() < before
    assert entropy_of(raw, C - 0.1 * C_step / C_step.norm()).item() > before


def test_reversal_is_the_identity_forward_and_minus_one_backward() -> None:
    x = torch.tensor([2.0, -3.0], requires_grad=True)
    y = losses.reverse_gradient(x)
    assert torch.equal(y, x)
    y.backward(torch.tensor([1.0, 5.0]))
    assert x.grad.tolist() == [-1.0, -5.0]


def test_codewords_move_towards_the_class_that_uses_them() -> None:
    """A step that lowers L_NPQ turns Z' towards its own class, through Z and through C."""
    angles = torch.tensor([0.3, 0.5, 2.2, 2.4])
    x = torch.stack([angles.cos(), angles.sin()], dim=-1)[:, None]
    similarity = similarity_of(0, 0, 1, 1)
    # z is short, so that the assignment to the prototypes is soft and depends on Z.
    Z = torch.tensor([[[0.06, 0.02], [0.02, 0.06]]], requires_grad=True)
    C = torch.tensor([[[1.0, 0.0], [-0.2, 1.0]]], requires_grad=True)

    def codewords(Z: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
        prototypes = normalize(C, dim=-1)
        return soft_assign(Z.transpose(0, 1), prototypes).transpose(0, 1)

    def loss(Z: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
        return losses.npair(x, soft_assign(x, codewords(Z, C)), similarity)

    def lead(Z: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
        """Returns how much nearer each codeword is to its own class than to the other."""
        own, other = x[:2].mean(dim=0), x[2:].mean(dim=0)
        return codewords(Z, C)[0] @ (own - other)[0] * torch.tensor([1.0, -1.0])

    Z_step, C_step = torch.autograd.grad(loss(Z, C), [Z, C])
    for moved in ((Z - 1e-3 * Z_step / Z_step.norm(), C), (Z, C - 1e-3 * C_step / C_step.norm())):
        assert loss(*moved) < loss(Z, C)
        assert lead(*moved).sum() > lead(Z, C).sum()
