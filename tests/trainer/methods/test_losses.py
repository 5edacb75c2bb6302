"""The losses of the learnt methods, on cases worked by hand."""

import math

import numpy as np
import pytest
import torch
from torch import tensor

from trainer.methods.base import Lesson
from trainer.methods.deep import bgdh, cnnh, dtq, ninh, ssdh, subic
from trainer.methods.deep.cnnh import factorised
from trainer.methods.deep.dqn import k_means, nearest
from trainer.methods.deep.pqn import ranking
from trainer.methods.deep.similarity import alike, pair_likelihood, squared_distances, triplets


def test_images_are_alike_if_they_share_a_class() -> None:
    y = tensor([[1.0, 0, 1], [0, 1, 0], [0, 1, 1]])
    assert alike(y, y).tolist() == [[True, False, True], [False, True, True], [True, True, True]]


def test_squared_distances() -> None:
    assert squared_distances(tensor([[0.0, 0], [3, 4]]), tensor([[0.0, 0]])).tolist() == [[0], [25]]


def test_triplets_that_keep_the_margin_cost_nothing() -> None:
    distances = tensor([[0.0, 1, 4]])
    similar = tensor([[True, True, False]])
    # p = 0: max(0, 4 + 0 - 4) = 0; p = 1: 4 + 1 - 4 = 1
    assert triplets(distances, similar, 4).item() == 0.5
    assert triplets(distances, tensor([[True, True, True]]), 4).item() == 0


def test_the_likelihood_of_a_pair() -> None:
    h = tensor([[2.0, 0], [2.0, 0]])
    yes, no = tensor([[True, True], [True, True]]), tensor([[True, False], [False, True]])
    assert pair_likelihood(h, yes).item() == pytest.approx(math.log(1 + math.exp(2)) - 2)
    assert pair_likelihood(h, no).item() == pytest.approx(math.log(1 + math.exp(2)))


def test_the_threshold_of_ninh_presses_what_is_outside_its_edges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ninh, "EDGE", 0.2)
    assert ninh.pressed(tensor([0.1, 0.4, 0.9])).tolist() == pytest.approx([0, 0.4, 1])


def test_the_entropy_of_subic_is_in_bits() -> None:
    assert subic.entropy(torch.full((16,), 1 / 16)).item() == pytest.approx(4)
    assert subic.entropy(tensor([1.0, 0, 0])).item() == pytest.approx(0)


def test_the_ranking_of_pqn_is_log_2_for_equal_scores() -> None:
    similar = tensor([[True, False, False]])
    assert ranking(tensor([[3.0, 3, 3]]), similar).item() == pytest.approx(math.log(2))
    assert ranking(tensor([[9.0, 0, 0]]), similar).item() == pytest.approx(math.log1p(math.exp(-9)))


def test_similarities_of_two_kinds_are_factorised_to_opposite_codes() -> None:
    H = factorised(np.array([[1.0, -1], [-1, 1]]), np.array([7, 3]), 12, seed=0)
    assert (H[0] == -H[1]).all() and set(H.ravel().tolist()) == {-1.0, 1.0}


def test_an_image_of_a_rare_set_of_labels_gets_the_code_of_the_likest_common_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    y = np.array([[1, 0, 0]] * 3 + [[0, 1, 1]] * 3 + [[0, 0, 1]], dtype=np.uint8)
    features = np.zeros((7, 4), dtype=np.float32)
    monkeypatch.setattr(cnnh, "MOST_KINDS", 2)
    learner = cnnh.CNNH(Lesson(features, y, features[:0], 12, seed=0))
    wanted = learner.targets(torch.from_numpy(y).float())
    assert (wanted[6] == wanted[5]).all() and (wanted[0] == 1 - wanted[5]).all()


def test_k_means_moves_words_and_leaves_unused_ones() -> None:
    parts = tensor([[[0.0]], [[1.0]], [[10.0]]])
    words = torch.full((1, 16, 1), 99.0)
    words[0, :2, 0] = tensor([2.0, 9.0])
    moved = k_means(parts, words)
    assert moved[0, :3, 0].tolist() == [0.5, 10, 99]
    assert nearest(parts, moved)[:, 0].tolist() == [0, 0, 1]


def test_additive_codes_find_the_words_that_were_added() -> None:
    generator = torch.Generator().manual_seed(0)
    words = torch.randn(3, 16, 64, generator=generator) * tensor([4.0, 2, 1])[:, None, None]
    codes = torch.randint(16, (50, 3), generator=generator)
    found = dtq.additive(words[torch.arange(3), codes].sum(dim=1), words)
    assert (found == codes).all()


def test_codebooks_overlap_unless_they_are_orthogonal() -> None:
    words = torch.zeros(2, 16, 2)
    words[0, :, 0] = words[1, :, 1] = 1
    assert dtq.overlap(words).item() == 0
    words[1] = words[0]
    assert dtq.overlap(words).item() == 1
    assert dtq.overlap(words[:1]).item() == 0


def test_the_hardest_of_a_group_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtq, "MARGIN", 1)
    distances = tensor([[0.0, 2.0, 2.5], [2.0, 0.0, 9.0], [2.5, 9.0, 0.0]])
    similar = tensor([[True, True, False], [True, True, False], [False, False, True]])
    # 1 + 2 - 2.5, and max(0, 1 + 2 - 9); the third has no similar image
    assert dtq.hardest_of_groups(distances, similar).item() == pytest.approx(0.25)


def test_neighbours_come_together_and_others_keep_a_distance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ssdh, "NEIGHBOURS", 1)
    near = ssdh.neighbours(tensor([[0.0], [1.0], [5.0]]))
    assert near.tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    distances = tensor([[0.0, 0.2, 0.15], [0.2, 0, 0.6], [0.15, 0.6, 0]])
    # neighbours: (0.2 + 0.6) / 2; the others: 0.25 - 0.15
    assert ssdh.contrastive(distances, near).item() == pytest.approx(0.4 + 0.1)


def test_an_image_predicts_its_landmarks_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bgdh, "EDGES", 1)
    distances = tensor([[0.0, 9.0, 9.0]])
    right, wrong = tensor([[30.0, -30.0, -30.0]]), tensor([[-30.0, -30.0, -30.0]])
    torch.manual_seed(0)
    assert bgdh.prediction(right, distances).item() == pytest.approx(0, abs=1e-6)
    assert bgdh.prediction(wrong, distances).item() > 5
