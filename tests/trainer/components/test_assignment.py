import numpy as np
import torch

from trainer.components.assignment import intra_normalise, soft_assign


def test_every_sub_vector_has_unit_length() -> None:
    x = intra_normalise(torch.randn(5, 36), 3)
    assert x.shape == (5, 3, 12)
    assert torch.allclose(x.norm(dim=-1), torch.ones(5, 3))


def test_soft_assignment_by_hand() -> None:
    x = torch.tensor([[[1.0, 0.0]]])
    words = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    weight = np.exp(2.0) / (np.exp(2.0) + 1)
    expected = np.array([weight, 1 - weight]) / np.hypot(weight, 1 - weight)
    assert np.allclose(soft_assign(x, words, alpha=2.0).numpy()[0, 0], expected)
