"""The three losses of GPQ (CVPR 2020, equations 2-5) and the gradient reversal.

The symbols are those of ``gpq``: x (B,M,d) are unit sub-vectors, q (B,M,d) their soft
quantisation, and C (M,L,d) prototypes of L classes.
"""

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from trainer.components.assignment import soft_assign

BETA = 4.0  # classification compares beta·x with beta·c, so logits scale by beta²


def npair(x: Tensor, q: Tensor, similarity: Tensor, weight: Tensor | None = None) -> Tensor:
    """Quantised N-pair loss L_NPQ, equations 2 and 3: the batch mean of a softmax cross-entropy.

    The logits are logits[a, b] = Σ_m x_am · q_bm. The targets are the rows of ``similarity``
    (B,B), non-negative, scaled to sum to 1. weight (B,) positive: how much each sample counts,
    both as a row and as a target.
    """
    return nested_npair(x, q, similarity, (x.shape[1],), weight)


def nested_npair(
    x: Tensor, q: Tensor, similarity: Tensor, prefixes: tuple[int, ...], weight: Tensor | None
) -> Tensor:
    """Returns the mean of ``npair`` over the first p sub-spaces, for each p in ``prefixes``.

    ``prefixes`` rise, so that the logits of each prefix are those of the one before and a sum over
    the sub-spaces that are new.
    """
    weight = torch.ones(len(x), device=x.device) if weight is None else weight
    target = similarity * weight
    target = target / target.sum(dim=1, keepdim=True)
    logits, done = torch.zeros((), device=x.device), 0
    found = []
    for p in prefixes:
        logits = logits + x[:, done:p].flatten(1) @ q[:, done:p].flatten(1).T
        each = functional.cross_entropy(logits, target, reduction="none")
        found.append((weight * each).mean())
        done = p
    return torch.stack(found).mean()


def triplet(x: Tensor, q: Tensor, similarity: Tensor, margin: float = 0.1) -> Tensor:
    """Triplet loss between features and quantised features, for the paper's variant GPQ-T.

    It is the mean of max(0, margin + s(a, n) - s(a, p)) over all anchors a, positives p and
    negatives n of the batch; s is the mean cosine. similarity (B,B) is positive for images that
    share a class.
    """
    score = x.flatten(1) @ q.flatten(1).T / x.shape[1]
    positive = similarity > 0
    violated = (margin + score[:, None, :] - score[:, :, None]).clamp(min=0)
    counted = positive[:, :, None] & ~positive[:, None, :]
    return (violated * counted).sum() / counted.sum().clamp(min=1)


def two_views(student: Tensor, teacher: Tensor, words: Tensor, temperature: float) -> Tensor:
    """InfoNCE (van den Oord et al. 2018) between two views of each of B images.

    student, teacher (B,M,d) unit sub-vectors of the two views, words (M,K,d) unit codewords. The
    features of each view must find the soft quantisation of the other view among all B. This draws
    features to codewords and codewords to features. The loss is the mean of both directions.
    """
    from_teacher = _other_view(teacher, soft_assign(student, words), temperature)
    from_student = _other_view(student, soft_assign(teacher, words), temperature)
    return (from_teacher + from_student) / 2


def _other_view(x: Tensor, q: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of logits[a, b] = mean_m x_am · q_bm / temperature; the target is b = a."""
    logits = x.flatten(1) @ q.flatten(1).T / (x.shape[1] * temperature)
    return functional.cross_entropy(logits, torch.arange(len(x), device=x.device))


def class_similarity(labels: Tensor) -> Tensor:
    """(B,C), 1 for each class of an image -> (B,B) float32, the number of shared classes."""
    return labels.float() @ labels.float().T


def class_target(labels: Tensor) -> Tensor:
    """(B,C), 1 for each class of an image -> (B,C) float32, rows that sum to 1."""
    return labels.float() / labels.sum(dim=1, keepdim=True)


def prototype_logits(x: Tensor, C: Tensor, beta: float = BETA) -> Tensor:
    """beta² · cosine(x_m, c_m): (B,M,d), (M,L,d) -> (B,M,L)."""
    return beta**2 * torch.einsum("bmd,mld->bml", x, functional.normalize(C, dim=-1))


def classification(logits: Tensor, target: Tensor, *, averaged: bool) -> Tensor:
    """L_cls, equation 4: softmax cross-entropy of (B,M,L) logits, per sample (B,).

    target (B,L), rows that sum to 1. ``averaged``: averages the logits over the M sub-spaces
    before the softmax, as the authors' code does. Otherwise the losses of the sub-spaces are
    averaged, as printed in the paper.
    """
    if averaged:
        return functional.cross_entropy(logits.mean(dim=1), target, reduction="none")
    spread = target[:, :, None].expand(-1, -1, logits.shape[1])
    return functional.cross_entropy(logits.transpose(1, 2), spread, reduction="none").mean(dim=1)


def entropy(logits: Tensor, *, averaged: bool) -> Tensor:
    """Sub-space entropy H, equation 5: (B,M,L) logits -> batch mean of -Σ p·log(p + 1e-5)."""
    p = torch.softmax(logits.mean(dim=1) if averaged else logits, dim=-1)
    return -(p * torch.log(p + 1e-5)).sum(dim=-1).mean()


def nested_logits(x: Tensor, C: Tensor, prefixes: tuple[int, ...], beta: float = BETA) -> Tensor:
    """The means of ``prototype_logits`` over the first p sub-spaces, for each p in ``prefixes``.

    (B,M,d), (M,L,d) -> (B,P,L). The logits of single sub-spaces, which are many, are not needed.
    """
    c = functional.normalize(C, dim=-1).transpose(1, 2)  # (M,d,L)
    sums, done = torch.zeros((), device=x.device), 0
    found = []
    for p in prefixes:
        sums = sums + x[:, done:p].flatten(1) @ c[done:p].flatten(0, 1)
        found.append(sums * (beta**2 / p))
        done = p
    return torch.stack(found, dim=1)


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


def reverse_gradient(x: Tensor) -> Tensor:
    """Returns x; its gradient is multiplied by -1 (Ganin & Lempitsky 2015).

    Applied to unlabelled features, it makes the network minimise the entropy H while the
    prototypes maximise it.
    """
    reversed_: Tensor = _Reversal.apply(x)
    return reversed_
