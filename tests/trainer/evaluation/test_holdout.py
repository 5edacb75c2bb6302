import numpy as np
import pytest
import torch
from torch.nn.functional import normalize, one_hot

from gpq.model.codebook import Codebook
from tests.trainer.recipes.test_recipe import config
from trainer.components.model import GPQ
from trainer.data.image_sets import TrainingSet
from trainer.evaluation import holdout
from trainer.evaluation.holdout import hold_out, mean_average_precision
from trainer.training.best import PATIENCE, Best


def data(*counts: int) -> TrainingSet:
    labels = one_hot(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)))
    pixels = torch.arange(len(labels)).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).to(torch.uint8)
    names = tuple(f"c{i}" for i in range(len(counts)))
    return TrainingSet(pixels, labels, pixels[:0], names)


def test_a_share_of_each_class_is_held_out_and_nothing_else_is_copied() -> None:
    whole = data(100, 40, 12, 5)
    rest, held = hold_out(whole, 0.1, seed=0)
    assert held.labels.sum(dim=0).tolist() == [10, 4, 2, 0]
    assert rest.labels.sum(dim=0).tolist() == [90, 36, 10, 5]
    assert rest.unlabelled is whole.unlabelled
    both = torch.cat([rest.labelled, held.pixels])[:, 0, 0, 0]
    assert sorted(both.tolist()) == list(range(157))
    again = hold_out(whole, 0.1, seed=0)[1]
    other = hold_out(whole, 0.1, seed=1)[1]
    assert torch.equal(held.pixels, again.pixels)
    assert not torch.equal(held.pixels, other.pixels)


def test_nothing_is_held_out_of_few_labels_or_by_a_share_of_none() -> None:
    for whole, share in ((data(5, 9), 0.1), (data(100, 100), 0.0)):
        rest, held = hold_out(whole, share, seed=0)
        assert held is None
        assert rest is whole


def test_a_rare_class_keeps_images_that_a_common_one_shares() -> None:
    labels = torch.cat([one_hot(torch.zeros(40, dtype=torch.int64), 2)])
    labels[:3, 1] = 1
    pixels = torch.zeros(40, 3, 4, 4, dtype=torch.uint8)
    rest, held = hold_out(TrainingSet(pixels, labels, pixels[:0], ("a", "b")), 0.5, seed=0)
    assert rest.labels[:, 1].sum() == 3
    assert held.labels[:, 1].sum() == 0


def test_labelled_images_that_are_also_the_unlabelled_ones_are_not_stored_twice() -> None:
    whole = data(100, 100)
    alone = TrainingSet(whole.labelled, whole.labels, whole.labelled, whole.classes)
    assert alone.all_labelled and not whole.all_labelled
    rest, _ = hold_out(alone, 0.1, seed=0)
    assert rest.all_labelled
    assert rest.to(torch.device("cpu")).all_labelled
    assert len(rest.unlabelled) == 180


def test_queries_are_spread_over_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second class is found perfectly and the first is not, so mAP is between."""
    monkeypatch.setattr(holdout, "MAX_QUERIES", 20)
    Z = torch.eye(16, 16)[None]
    labels = one_hot(torch.arange(2).repeat_interleave(100))
    codes = torch.cat([torch.arange(100) % 8, torch.full((100,), 9)])
    found = mean_average_precision(Z[0][codes], labels, Codebook(Z.numpy()))
    assert 0.6 < found < 0.9


def test_an_image_of_several_classes_counts_for_each() -> None:
    whole = data(20)
    both = TrainingSet(whole.labelled, whole.labels.expand(-1, 2), whole.unlabelled, ("a", "b"))
    assert len(hold_out(both, 0.1, seed=0)[1].labels) == 2


def test_map_is_one_if_each_class_has_its_own_codewords_and_by_chance_otherwise() -> None:
    Z = normalize(torch.eye(16, 16)[None].repeat(2, 1, 1), dim=-1)
    labels = one_hot(torch.arange(400) % 4)
    features, book = Z[0][torch.arange(400) % 4].repeat(1, 2), Codebook(Z.numpy())
    assert mean_average_precision(features, labels, book) == pytest.approx(1)
    alike = Z[0][torch.zeros(400, dtype=torch.int64)].repeat(1, 2)
    assert mean_average_precision(alike, labels, book) == pytest.approx(0.25, abs=0.02)
    alone = one_hot(torch.arange(400))
    assert mean_average_precision(features, alone, book) == 0


def test_best_restores_its_best_check_and_gives_up_after_some() -> None:
    best, made = Best(1000), GPQ(config("modern"), 3)
    best.offer(10, 0.5, made)
    kept = made.Z.detach().clone()
    for check in range(PATIENCE):
        assert not best.exhausted
        with torch.no_grad():
            made.Z += 1
        best.offer(20 + check, 0.4, made)
    assert best.exhausted
    resumed = Best(1000)
    resumed.load_state(best.state())
    resumed.restore(made)
    assert torch.equal(made.Z, kept)
    assert (resumed.step, resumed.mAP, resumed.exhausted) == (10, 0.5, True)
    before = made.Z.detach().clone()
    Best(1000).restore(made)
    assert np.array_equal(made.Z.detach(), before)


def test_few_held_out_images_do_not_decide() -> None:
    best, made = Best(20), GPQ(config("modern"), 3)
    for step in range(3 * PATIENCE):
        best.offer(step, 1 / (step + 1), made)
    assert not best.exhausted
    assert (best.step, best.mAP) == (3 * PATIENCE - 1, 1 / (3 * PATIENCE))
    before = made.Z.detach().clone()
    best.restore(made)
    assert torch.equal(made.Z, before)
