"""Learns a linear classifier of features, from a few labelled images and many unlabelled ones.

It is a logistic regression whose temperature is calibrated by cross-validation (Guo et al., ICML
2017) and which then learns from its own probabilities for unlabelled images (self-training).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

DECAY = 0.1  # weight of half the squared weights, beside the sum of losses of labelled images
SCALE = 7.5  # root mean square length of the features that the decay is meant for
TEMPERATURES = (2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25)
USUAL = 0.7  # temperature where no class has two images to compare
SHARPNESS = 0.7  # temperature of its own probabilities that it learns from
UNLABELLED_WEIGHT = 0.3  # of all unlabelled images together, of the labelled ones' 1
ROUNDS = 3  # of self-training
ITERATIONS, MORE_ITERATIONS = 100, 40  # of L-BFGS, from zero and in each round
HISTORY = 10  # steps of L-BFGS that are kept in memory
BISECTIONS = 30


def learn(labelled: Tensor, labels: Tensor, unlabelled: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Returns weight (C,E) and bias (C,) of a layer whose softmax is the probability of classes.

    labelled (L,V,E): features of V views of each image, centred. labels (L,C): rows that sum to 1.
    unlabelled (U,E): features of other images, or none.
    """
    factor = SCALE / labelled.square().sum(dim=2).mean().sqrt().clamp(min=1e-12)
    images, views, _ = labelled.shape
    x = factor * labelled.flatten(0, 1)
    y = labels.repeat_interleave(views, dim=0)
    ones = torch.full((len(x),), 1 / views)
    temperature = _temperature(x, y, ones, views, seed)
    layer = _fitted(x, y, ones, DECAY)
    layer = (layer[0] / temperature, layer[1] / temperature)
    if len(unlabelled):
        layer = _self_trained(layer, x, y, ones, factor * unlabelled, images)
    return factor * layer[0], layer[1]


def _self_trained(
    layer: tuple[Tensor, Tensor], x: Tensor, y: Tensor, ones: Tensor, others: Tensor, images: int
) -> tuple[Tensor, Tensor]:
    """Returns the layer after rounds in which it learns from its own probabilities of ``others``.

    Its mean certainty about them stays the same.
    """
    certainty = _certainty(others, layer, 1.0)
    each = torch.full((len(others),), UNLABELLED_WEIGHT * images / len(others))
    everything, weights = torch.cat([x, others]), torch.cat([ones, each])
    for _ in range(ROUNDS):
        own = torch.softmax(functional.linear(others, *layer) / SHARPNESS, dim=1)
        decay = DECAY * (1 + UNLABELLED_WEIGHT)
        layer = _fitted(everything, torch.cat([y, own]), weights, decay, layer)
        low, high = 0.01, 10.0
        for _ in range(BISECTIONS):
            middle = (low * high) ** 0.5
            low, high = (
                (middle, high) if _certainty(others, layer, middle) > certainty else (low, middle)
            )
        layer = (layer[0] / middle, layer[1] / middle)
    return layer


def _temperature(x: Tensor, y: Tensor, weights: Tensor, views: int, seed: int) -> float:
    """Returns the temperature with the smallest loss of images, each half predicted by the other.

    x (L·V,E) and y (L·V,C): V rows of each image in turn. Images of classes that the other half
    lacks don't count.
    """
    half = (numbers(y[::views], seed) % 2 == 1).repeat_interleave(views)
    logits, counted = torch.zeros_like(y), torch.zeros(len(y), dtype=torch.bool)
    for side in (half, ~half):
        if not side.any():
            return USUAL
        layer = _fitted(x[side], y[side], weights[side], DECAY)
        logits[~side] = functional.linear(x[~side], *layer)
        absent = y[side].sum(dim=0) == 0
        counted[~side] = y[~side][:, absent].sum(dim=1) == 0
    if not counted.any():
        return USUAL
    logits, y = logits[counted], y[counted]
    losses = [float(functional.cross_entropy(logits / t, y)) for t in TEMPERATURES]
    return TEMPERATURES[losses.index(min(losses))]


def numbers(labels: Tensor, seed: int) -> Tensor:
    """Numbers the images of each class from 0 in random order: (L,C) -> (L,) int64."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[torch.argsort(labels[order].argmax(dim=1), stable=True)]
    counts = torch.bincount(labels.argmax(dim=1))
    first = torch.repeat_interleave(counts.cumsum(dim=0) - counts, counts)
    found = torch.empty(len(labels), dtype=torch.int64)
    found[order] = torch.arange(len(labels)) - first
    return found


def _certainty(x: Tensor, layer: Sequence[Tensor], temperature: float) -> float:
    """Returns the mean probability of the likeliest class."""
    logits = functional.linear(x, *layer) / temperature
    return float(torch.softmax(logits, dim=1).amax(dim=1).mean())


def _fitted(
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    decay: float,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Fits a logistic regression by L-BFGS: x (N,E), y (N,C) whose rows sum to 1, weights (N,)."""
    first = start or (torch.zeros(y.shape[1], x.shape[1]), torch.zeros(y.shape[1]))
    weight, bias = (tensor.clone().requires_grad_() for tensor in first)
    optimiser = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MORE_ITERATIONS if start else ITERATIONS,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        each = functional.cross_entropy(functional.linear(x, weight, bias), y, reduction="none")
        total = (weights * each).sum() + decay / 2 * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
