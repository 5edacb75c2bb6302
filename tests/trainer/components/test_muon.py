import pytest
import torch
from torch import nn

from gpq.engine import torch_architectures
from trainer.components.muon import Muon, orthogonalise, scale_free


def test_singular_values_come_near_to_one_and_directions_stay() -> None:
    torch.manual_seed(0)
    for shape in ((8, 40), (40, 8), (16, 16)):
        matrix = torch.randn(shape)
        U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
        found = orthogonalise(matrix)
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.4 and values.max() < 1.4
        cosine = (found * (U @ Vh)).sum() / found.norm() / (U @ Vh).norm()
        assert cosine > 0.95


def test_scale_is_free_if_a_norm_follows() -> None:
    small = torch_architectures.build("early32", 24, 4)
    wanted = [m.weight for m in small.modules() if isinstance(m, nn.Conv2d)]
    assert len(wanted) == 10
    assert all(found is weight for found, weight in zip(scale_free(small), wanted, strict=True))
    assert scale_free(nn.Conv2d(3, 4, 3)) == []
    assert scale_free(nn.Conv2d(4, 4, 3, groups=4, bias=False)) == []


def test_filters_keep_the_length_that_they_start_with() -> None:
    """The running statistics of a published network's norms are for filters of that length."""
    filters = nn.Conv2d(3, 8, 3, bias=False)
    muon = Muon([{"params": [filters.weight], "orthogonal": True}], lr=1e-4)
    before = filters.weight.norm().item()
    for _ in range(3):
        filters.weight.grad = torch.randn_like(filters.weight)
        muon.step()
    assert filters.weight.norm().item() == pytest.approx(before, rel=1e-3)


def test_a_step_turns_convolutions_and_leaves_the_rest_to_adamw() -> None:
    torch.manual_seed(0)
    filters = nn.Conv2d(3, 8, 3, bias=False)
    linear = nn.Linear(5, 2)
    alone = nn.Linear(5, 2)
    alone.load_state_dict(linear.state_dict())
    groups = [
        {"params": [filters.weight], "orthogonal": True, "lr": 0.1},
        {"params": list(linear.parameters())},
    ]
    muon = Muon(groups, lr=1e-2)
    adam = torch.optim.AdamW(alone.parameters(), lr=1e-2)
    before = filters.weight.detach().clone()
    for parameter in (*filters.parameters(), *linear.parameters()):
        parameter.grad = torch.randn_like(parameter)
    for parameter, other in zip(alone.parameters(), linear.parameters(), strict=True):
        parameter.grad = other.grad.clone()
    muon.step()
    adam.step()
    assert torch.equal(linear.weight, alone.weight)
    length = before.norm() / 8**0.5  # mean square length of the filters
    moved = (filters.weight - before).flatten(1) / length
    assert torch.linalg.svdvals(moved).min() > 0.4 * 0.1
    assert torch.linalg.svdvals(moved).max() < 1.4 * 0.1


def test_momentum_goes_on_from_its_state() -> None:
    def made() -> tuple[nn.Conv2d, Muon]:
        torch.manual_seed(0)
        filters = nn.Conv2d(3, 8, 3, bias=False)
        return filters, Muon([{"params": [filters.weight], "orthogonal": True}], lr=0.1)

    gradients = [torch.randn(8, 3, 3, 3) for _ in range(2)]
    unbroken, muon = made()
    for gradient in gradients:
        unbroken.weight.grad = gradient.clone()
        muon.step()
    first, before = made()
    first.weight.grad = gradients[0].clone()
    before.step()
    second, after = made()
    second.load_state_dict(first.state_dict())
    after.load_state_dict(before.state_dict())
    second.weight.grad = gradients[1].clone()
    after.step()
    assert torch.equal(second.weight, unbroken.weight)
