"""Embeds images so that inner products say how similar they are, and starts codes from that."""

import torch
from torch import Tensor
from torch.nn import functional

from gpq.engine.torch_architectures import ClassProject
from gpq.model.codebook import K
from trainer.components.clustering import spherical_k_means
from trainer.components.losses import class_target
from trainer.components.model import GPQ
from trainer.components.views import PLAIN, FeatureViews
from trainer.data.image_sets import TrainingSet
from trainer.initial import classifier
from trainer.initial.rotation import rotated

MOST = 10_000  # labelled images that the start is computed from, and as many unlabelled ones
ITERATIONS = 12
FEW, MANY = 1.0, 2.0  # weight of classes beside features: up to D classes, and more


def embedded(likely: Tensor, features: Tensor, weight: float) -> Tensor:
    """Joins probabilities (B,C) and features (B,E) to embeddings (B,C+E).

    Both are centred and scaled to the mean square length 1, the probabilities then by ``weight``.
    """
    return torch.cat([weight * _standard(likely), _standard(features)], dim=1)


def weight_of(given: float | None, classes: int, dimension: int) -> float:
    """Returns ``given``, or a weight of ``classes`` for sub-vectors of D in all if it is None."""
    if given is not None:
        return given
    return FEW if classes <= dimension else MANY


@torch.no_grad()
def start(model: GPQ, data: TrainingSet, seed: int, class_weight: float | None) -> None:
    """Learns the classifier of ``model``'s last layer, and starts its projection and codewords.

    ``data``: with features of a frozen part. ``class_weight``: see ``weight_of``.
    """
    last = model.F.get_submodule("project")
    assert isinstance(last, ClassProject)
    views = FeatureViews(data.standard and data.standard.to(torch.device("cpu")))
    generator = torch.Generator().manual_seed(seed)
    rows = torch.argsort(classifier.numbers(data.labels.cpu(), seed), stable=True)[:MOST]
    features = data.labelled[rows.to(data.labelled.device)].cpu()
    numbers = range(min(PLAIN, features.shape[1]))
    labelled = torch.stack([views.view(features, number) for number in numbers], dim=1)
    drawn = torch.randperm(len(data.unlabelled), generator=generator)[:MOST]
    others = views.plain(data.unlabelled[drawn.to(data.unlabelled.device)].cpu())
    unlabelled = others[:0] if data.all_labelled else others
    targets = class_target(data.labels.cpu()[rows])
    with torch.enable_grad():
        learnt, bias = classifier.learn(labelled, targets, unlabelled, seed)
    last.classes.load_state_dict({"weight": learnt, "bias": bias})
    likely = torch.softmax(functional.linear(others, learnt, bias), dim=1)
    weight = weight_of(class_weight, likely.shape[1], last.out_features)
    found = _by_components if likely.shape[1] <= last.out_features else _by_groups
    d = last.out_features // model.M
    linear, offset, words = found(likely, others, weight, model.M, d, seed)
    last.weight.copy_(linear)
    last.bias.copy_(offset)
    model.Z.copy_(words)
    if model.means is not None:
        model.means.copy_(words)


def _by_components(
    likely: Tensor, features: Tensor, weight: float, M: int, d: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotates the strongest components of the embeddings (Ge et al., CVPR 2013).

    Returns the last layer's weight (D,C+E) and bias (D,), and codewords (M,K,d).
    """
    x = embedded(likely, features, weight)
    mean, scale = _inputs(likely, features, weight)
    covariance = (x.T @ x / len(x)).double()
    axes = _strongest(covariance, M * d)
    generator = torch.Generator().manual_seed(seed)
    turn, words = rotated(functional.normalize(x @ axes, dim=1), M, d, ITERATIONS, generator)
    linear = (axes @ turn.T).T * scale
    return linear, -linear @ mean, words


def _by_groups(
    likely: Tensor, features: Tensor, weight: float, M: int, d: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gives each codebook its own division of the classes into K groups.

    Two classes then differ in most codebooks, as the words of an error-correcting code do.

    Components would leave classes out, if there are more of them than outputs. Returns the same as
    ``_by_components``.
    """
    generator = torch.Generator().manual_seed(seed)
    points = functional.normalize(torch.randn(1, 2048, d, generator=generator), dim=2)
    apart = spherical_k_means(points, K)[0]  # (K,d)
    classes = likely.shape[1]
    x = embedded(likely, features, weight)
    mean, scale = _inputs(likely, features, weight)
    axes = _strongest((x[:, classes:].T @ x[:, classes:] / len(x)).double(), M * d)
    turn = torch.linalg.qr(torch.randn(M * d, M * d, generator=generator))[0]
    of_features = (axes @ turn).T
    of_classes = []
    for _ in range(M):
        group = torch.randperm(classes, generator=generator) % K
        turned = apart @ torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
        of_classes.append(turned[group].T)
    linear = torch.cat([torch.cat(of_classes), of_features], dim=1)
    for columns, wanted in ((slice(0, classes), weight), (slice(classes, None), 1.0)):
        parts = x[:, columns] @ linear[:, columns].T
        length = parts.view(-1, M, d).norm(dim=2).square().mean().sqrt()
        linear[:, columns] *= wanted / length.clamp(min=1e-6)
    sub_vectors = functional.normalize((x @ linear.T).view(-1, M, d), dim=2)
    words = spherical_k_means(sub_vectors[:2048].transpose(0, 1).contiguous(), K)
    linear = linear * scale
    return linear, -linear @ mean, words


def _strongest(covariance: Tensor, D: int) -> Tensor:
    """Returns the D strongest principal axes (E,D) of a covariance (E,E), zeros beyond E."""
    axes = torch.linalg.eigh(covariance)[1].flip(1)[:, :D].float()
    return functional.pad(axes, (0, D - axes.shape[1]))


def _standard(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=0)
    return centred / _length(centred)


def _inputs(likely: Tensor, features: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Returns mean (C+E,) and scale (C+E,) with which ``embedded`` is scale · (input - mean)."""
    parts = ((likely, weight), (features, 1.0))
    means = [x.mean(dim=0) for x, _ in parts]
    scales = [
        (wanted / _length(x - mean)).expand(x.shape[1])
        for (x, wanted), mean in zip(parts, means, strict=True)
    ]
    return torch.cat(means), torch.cat(scales)


def _length(centred: Tensor) -> Tensor:
    return centred.square().sum(dim=1).mean().sqrt().clamp(min=1e-6)
