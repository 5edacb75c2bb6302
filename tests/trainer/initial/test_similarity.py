from dataclasses import replace

import pytest
import torch
from torch.nn.functional import one_hot

from gpq.model.codebook import Codebook
from trainer.components.head import Head
from trainer.components.model import GPQ
from trainer.config import Config
from trainer.data.image_sets import TrainingSet
from trainer.frozen.features import standard_of
from trainer.initial import similarity
from trainer.recipes.distilled import correlation


def config(bits: int) -> Config:
    return Config(
        recipe="distilled", variant="gpq", network="efficientnet-lite0", width=0, size=224,
        bits=bits, details=bits // 4, logits="averaged", steps=4, batch_labelled=8,
        batch_unlabelled=8, learning_rate=1e-3, lambda1=0.0, lambda2=0.0, held_out=0.0, seed=0,
        dataset="folder", init="", teacher="", compile="", freeze="all", views=2,
    )  # fmt: skip


def features(classes: int, each: int) -> tuple[TrainingSet, torch.Tensor]:
    """Returns a set of which two images a class have labels, and the classes of the others."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, 64, generator=generator)
    labels = torch.arange(classes * each) % classes
    noise = torch.randn(len(labels), 2, 64, generator=generator)
    values = (centres[labels][:, None] + 0.7 * noise).half()
    known = 2 * classes
    names = tuple(map(str, range(classes)))
    data = TrainingSet(
        values[:known],
        one_hot(labels[:known]).byte(),
        values[known:],
        names,
        standard=standard_of(values[known:], alike=True),
    )
    return data, labels[known:]


def precision(model: GPQ, data: TrainingSet, truth: torch.Tensor) -> torch.Tensor:
    """Returns the precision at 5 of each unlabelled image (N,) that searches among the others."""
    assert data.standard is not None
    seen = (data.unlabelled[:, 0].float() - data.standard.mean) / data.standard.deviation
    with torch.no_grad():
        raw = model.features(seen).numpy()
    codebook = Codebook(model.codewords().detach().numpy())
    codes = torch.from_numpy(codebook.encode(raw)).long()
    lut = torch.from_numpy(codebook.lut(raw))
    scores = sum(lut[:, m][:, codes[:, m]] for m in range(codebook.M))
    nearest = torch.as_tensor(scores).fill_diagonal_(-1).topk(5, dim=1).indices
    return (truth[nearest] == truth[:, None]).float().mean(dim=1)


@pytest.mark.parametrize(("classes", "bits"), [(6, 24), (60, 16), (80, 24), (40, 32)])
def test_codes_find_the_class_before_the_first_step(classes: int, bits: int) -> None:
    """There are fewer and more classes than outputs, and fewer and more features than outputs."""
    data, truth = features(classes, 12)
    model = GPQ(config(bits), classes, Head(64, bits * 3, classes)).eval()
    similarity.start(model, data, seed=0, class_weight=None)
    assert float(precision(model, data, truth).mean()) > 0.8
    again = GPQ(config(bits), classes, Head(64, bits * 3, classes)).eval()
    similarity.start(again, data, seed=0, class_weight=None)
    for name in ("F.project.weight", "F.project.bias", "Z"):
        assert torch.equal(again.state_dict()[name], model.state_dict()[name])


def test_a_small_class_weight_keeps_kinds_apart_that_no_label_names() -> None:
    data, truth = features(classes=12, each=20)
    named = data.labels.argmax(dim=1) < 6
    data = replace(data, labelled=data.labelled[named], labels=data.labels[named, :6])
    found = {}
    for weight in (0.2, 4.0):
        model = GPQ(config(bits=16), 6, Head(64, 48, 6)).eval()
        similarity.start(model, data, seed=0, class_weight=weight)
        found[weight] = precision(model, data, truth)
    unnamed = truth >= 6
    assert found[0.2][unnamed].mean() > found[4.0][unnamed].mean() + 0.1


def test_embeddings_weigh_classes_and_features() -> None:
    generator = torch.Generator().manual_seed(0)
    likely, seen = torch.rand(50, 3, generator=generator), torch.randn(50, 8, generator=generator)
    x = similarity.embedded(likely, seen, 2.0)
    assert torch.allclose(x.mean(dim=0), torch.zeros(11), atol=1e-6)
    assert float(x[:, :3].square().sum(dim=1).mean()) == pytest.approx(4, rel=1e-4)
    assert float(x[:, 3:].square().sum(dim=1).mean()) == pytest.approx(1, rel=1e-4)
    mean, scale = similarity._inputs(likely, seen, 2.0)
    assert torch.allclose((torch.cat([likely, seen], dim=1) - mean) * scale, x, atol=1e-5)


def test_correlation_leaves_out_the_diagonal() -> None:
    first = torch.tensor([[9.0, 1, 2], [1, -9, 3], [2, 3, 0]])
    assert float(correlation(first, 2 * first + 1)) == pytest.approx(1)
    opposite = -first
    opposite.fill_diagonal_(100)
    assert float(correlation(first, opposite)) == pytest.approx(-1)
    values = torch.tensor([1.0, 2, 1, 3, 2, 3]), torch.tensor([0.0, 1, 5, 2, 1, 1])
    matrices = []
    for numbers in values:
        matrix = torch.zeros(3, 3)
        matrix[~torch.eye(3, dtype=torch.bool)] = numbers
        matrices.append(matrix)
    expected = float(torch.corrcoef(torch.stack(values))[0, 1])
    assert float(correlation(*matrices)) == pytest.approx(expected, abs=1e-5)
