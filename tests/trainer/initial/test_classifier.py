import torch
from torch.nn import functional
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
    assert torch.allclose(once[0], twice[0], atol=5e-3)


def test_a_class_with_one_image_has_the_usual_temperature() -> None:
    labelled, labels = clusters(5, 1.0, seed=0)
    y = one_hot(labels).float()
    weights = torch.ones(5)
    assert classifier._temperature(labelled, y, weights, 1, seed=0) == classifier.USUAL
    weight, bias = classifier.learn(labelled[:, None], y, labelled, seed=0)
    assert weight.isfinite().all() and bias.isfinite().all()
    assert accuracy((weight, bias), labelled, labels) == 1


def test_classes_with_one_image_do_not_change_the_temperature() -> None:
    labelled, labels = clusters(40, 1.5, seed=0)
    y = functional.pad(one_hot(labels).float(), (0, 30))
    ones = torch.ones(40)
    alone = classifier._temperature(labelled, y, ones, 1, seed=0)
    others = torch.randn(30, 40, generator=torch.Generator().manual_seed(5))
    more = torch.cat([labelled, others]), torch.cat([y, torch.eye(35)[5:]])
    beside = classifier._temperature(*more, torch.ones(70), 1, seed=0)
    choices = classifier.TEMPERATURES
    assert abs(choices.index(beside) - choices.index(alone)) <= 1


def test_the_images_of_each_class_are_numbered_in_random_order() -> None:
    labels = one_hot(torch.tensor([2, 0, 0, 1, 0, 2, 0])).float()
    found = classifier.numbers(labels, seed=3)
    for c in range(3):
        of_class = found[labels[:, c] == 1]
        assert sorted(of_class.tolist()) == list(range(len(of_class)))
    assert not torch.equal(found, classifier.numbers(labels, seed=4))
