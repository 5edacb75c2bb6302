import numpy as np
import pytest
import torch
from torch.nn.functional import normalize, one_hot

from gpq.model.codebook import Codebook
from tests.trainer.recipes.test_recipe import config
from trainer.components.model import GPQ
from trainer.data.image_sets import TrainingSet
from trainer.evaluation import holdout
from trainer.evaluation.holdout import (
    Check,
    HeldOut,
    _keep_one_of_each,
    hold_out,
    mean_average_precision,
)
from trainer.training.best import PATIENCE, Best


def data(*counts: int) -> TrainingSet:
    labels = one_hot(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)))
    pixels = torch.arange(len(labels)).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).to(torch.uint8)
    names = tuple(f"c{i}" for i in range(len(counts)))
    return TrainingSet(pixels, labels, pixels[:0], names)


def test_a_share_of_each_class_is_held_out_and_nothing_else_is_copied() -> None:
    whole = data(100, 40, 12, 5)
    rest, held = hold_out(whole, 0.1, seed=0)
    assert held.labels.sum(dim=0).tolist() == [10, 4, 2, 1]
    assert rest.labels.sum(dim=0).tolist() == [90, 36, 10, 4]
    assert rest.unlabelled is whole.unlabelled
    both = torch.cat([rest.labelled, held.pixels])[:, 0, 0, 0]
    assert sorted(both.tolist()) == list(range(157))
    again = hold_out(whole, 0.1, seed=0)[1]
    other = hold_out(whole, 0.1, seed=1)[1]
    assert torch.equal(held.pixels, again.pixels)
    assert not torch.equal(held.pixels, other.pixels)


def test_nothing_is_held_out_of_few_labels_or_by_a_share_of_none() -> None:
    for whole, share in ((data(2, 2), 0.1), (data(1, 1, 1), 0.5), (data(100, 100), 0.0)):
        rest, held = hold_out(whole, share, seed=0)
        assert held is None
        assert rest is whole


def test_small_classes_give_one_image_each_as_often_as_the_share_asks() -> None:
    _, held = hold_out(data(*[4] * 10), 0.1, seed=0)
    per_class = held.labels.sum(dim=0)
    assert per_class.sum() == 4 and per_class.max() == 1
    assert torch.nonzero(per_class).flatten().tolist() == [0, 3, 6, 9]  # evenly spaced
    rest, held = hold_out(data(*[2] * 6, 1), 0.5, seed=0)
    assert rest.labels.sum(dim=0).tolist() == [1] * 7
    assert held.labels.sum(dim=0).tolist() == [1] * 6 + [0]


def test_every_class_keeps_an_image_if_images_have_several_classes() -> None:
    labels = torch.zeros(40, 3, dtype=torch.int64)
    labels[:, 0] = 1
    labels[:2, 1] = 1
    labels[2:8, 2] = 1
    pixels = torch.zeros(40, 3, 4, 4, dtype=torch.uint8)
    whole = TrainingSet(pixels, labels, pixels[:0], ("a", "b", "c"))
    for seed in range(20):
        rest, held = hold_out(whole, 0.5, seed)
        assert rest.labels.sum(dim=0).min() >= 1
        assert held.labels[:, 1].sum() <= 1


def test_no_class_loses_all_of_its_images() -> None:
    labels = torch.tensor([[1, 0], [1, 0], [0, 1]], dtype=torch.bool)
    chosen = torch.tensor([True, True, False])
    _keep_one_of_each(labels, chosen)
    assert chosen.tolist() == [False, True, False]


def test_labelled_images_that_are_also_the_unlabelled_ones_are_not_stored_twice() -> None:
    whole = data(100, 100)
    alone = TrainingSet(whole.labelled, whole.labels, whole.labelled, whole.classes)
    assert alone.all_labelled and not whole.all_labelled
    rest, _ = hold_out(alone, 0.1, seed=0)
    assert rest.all_labelled
    assert rest.to(torch.device("cpu")).all_labelled
    assert len(rest.unlabelled) == 180


def rows(labels: torch.Tensor) -> torch.Tensor:
    """Returns images (N,3,4,4) whose pixels are their class."""
    return labels.argmax(dim=1).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).to(torch.uint8)


def test_a_check_finds_single_held_out_images_among_those_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels, Z = one_hot(torch.arange(60) % 6), torch.eye(16, 16)[None]
    trained = TrainingSet(rows(labels), labels, rows(labels)[:0], tuple("abcdef"))
    held = HeldOut(rows(labels[:6]), labels[:6])  # one of each class
    asked: list[int] = []

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        asked.append(len(pixels))
        return Z[0][pixels[:, 0, 0, 0].long()]

    book = Codebook(Z.numpy())
    assert Check(trained, held).mAP(embed, book) == pytest.approx(1)
    assert asked == [6, 60]
    alike = Check(trained, held).mAP(lambda pixels: Z[0][[0] * len(pixels)], book)
    assert alike == pytest.approx(1 / 6, abs=0.06)
    monkeypatch.setattr(holdout, "MAX_SEARCHED", 30)
    monkeypatch.setattr(holdout, "MAX_QUERIES", 4)
    asked.clear()
    assert Check(trained, held).mAP(embed, book) == pytest.approx(1)
    assert asked == [4, 26]


def test_an_image_of_several_classes_counts_for_each() -> None:
    whole = data(20)
    both = TrainingSet(whole.labelled, whole.labels.expand(-1, 2), whole.unlabelled, ("a", "b"))
    assert len(hold_out(both, 0.1, seed=0)[1].labels) == 2


def test_map_is_one_if_each_class_has_its_own_codewords_and_by_chance_otherwise() -> None:
    Z = normalize(torch.eye(16, 16)[None].repeat(2, 1, 1), dim=-1)
    labels = one_hot(torch.arange(400) % 4)
    features, book = Z[0][torch.arange(400) % 4].repeat(1, 2), Codebook(Z.numpy())
    assert mean_average_precision(features, labels, 400, book) == pytest.approx(1)
    alike = Z[0][torch.zeros(400, dtype=torch.int64)].repeat(1, 2)
    assert mean_average_precision(alike, labels, 100, book) == pytest.approx(0.25, abs=0.02)
    alone = one_hot(torch.arange(400))
    assert mean_average_precision(features, alone, 400, book) == 0


def test_only_the_first_images_are_queries() -> None:
    """The second half is not found at all."""
    Z = torch.eye(16, 16)[None]
    labels = one_hot(torch.arange(8) // 2)
    features = Z[0][torch.tensor([0, 0, 1, 1, 2, 3, 4, 5])]
    found = [mean_average_precision(features, labels, n, Codebook(Z.numpy())) for n in (4, 8)]
    assert found[0] == 1 and found[1] < 0.8


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
    assert (best.start, best.progress) == (0.0, "0.000→0.400")
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
