import torch
from torch.nn.functional import one_hot

from trainer.initial import classifier


def clusters(n: int, spread: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns points (n,40) around one of five centres each, and the number of the centre."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(5, 40, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(n) % 5
    return centres[labels] + spread * torch.randn(n, 40, generator=generator), labels


def accuracy(layer: tuple[torch.Tensor, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> float:
    return float(((x @ layer[0].T + layer[1]).argmax(dim=1) == y).float().mean())


def test_unlabelled_images_make_the_classifier_better_and_its_probabilities_stay_honest() -> None:
    labelled, labels = clusters(20, 2.5, seed=0)
    others, truth = clusters(2000, 2.5, seed=1)
    x, y = labelled[:, None], one_hot(labels).float()
    alone = classifier.learn(x, y, others[:0], seed=0)
    taught = classifier.learn(x, y, others, seed=0)
    assert accuracy(taught, others, truth) > accuracy(alone, others, truth) + 0.02
    for layer in (alone, taught):
        certainty = torch.softmax(others @ layer[0].T + layer[1], dim=1).amax(dim=1).mean()
        assert abs(float(certainty) - accuracy(layer, others, truth)) < 0.2


def test_views_of_one_image_count_as_one() -> None:
    labelled, labels = clusters(20, 1.0, seed=0)
    y = one_hot(labels).float()
    once = classifier.learn(labelled[:, None], y, labelled[:0], seed=0)
    twice = classifier.learn(labelled[:, None].expand(-1, 2, -1), y, labelled[:0], seed=0)
    assert torch.allclose(once[0], twice[0], atol=1e-3)


def test_a_class_with_one_image_has_the_usual_temperature() -> None:
    labelled, labels = clusters(5, 1.0, seed=0)
    weight, bias = classifier.learn(labelled[:, None], one_hot(labels).float(), labelled, seed=0)
    assert weight.isfinite().all() and bias.isfinite().all()
    assert accuracy((weight, bias), labelled, labels) == 1


def test_each_class_is_divided_into_halves() -> None:
    labels = one_hot(torch.tensor([0] * 6 + [1] * 3 + [2])).float()
    half = classifier._halves(labels, seed=3)
    assert [int(half[labels[:, c] == 1].sum()) for c in range(3)] == [3, 1, 0]
