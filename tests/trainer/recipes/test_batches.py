import pytest
import torch
from torch.nn.functional import one_hot

from trainer.recipes.batches import Batches, balanced_rows


def test_batches_take_every_row_before_any_twice() -> None:
    batches = Batches(torch.arange(10), 4, torch.Generator().manual_seed(0))
    rows = torch.cat([batches.next() for _ in range(5)])
    assert sorted(rows[:10].tolist()) == list(range(10))
    assert sorted(rows[10:].tolist()) == list(range(10))
    with pytest.raises(ValueError, match="no rows"):
        Batches(torch.arange(0), 4, torch.Generator())
    assert len(Batches(torch.arange(3), 8, torch.Generator()).next()) == 8


def test_rare_classes_come_more_often_and_equal_ones_as_they_are() -> None:
    equal = one_hot(torch.arange(30) % 3)
    assert balanced_rows(equal).tolist() == list(range(30))
    counts = torch.tensor([400, 100, 4])
    labels = one_hot(torch.arange(3).repeat_interleave(counts))
    of_class = labels[balanced_rows(labels)].sum(dim=0)
    assert of_class.tolist() == [400, 200, 40]
    both = torch.tensor([[1, 1]] + [[1, 0]] * 9)
    assert balanced_rows(both).bincount().tolist() == [3] + [1] * 9
