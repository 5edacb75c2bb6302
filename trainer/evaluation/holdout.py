"""Holds out labelled images from training, to find the step at which the model is best."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gpq.model.codebook import Codebook
from trainer.data.image_sets import TrainingSet, spread
from trainer.data.images import ArrayImages, Images
from trainer.evaluation.metrics import mean_metrics
from trainer.evaluation.ranking import ranked

MIN_CLASS_SIZE = 10  # a class with fewer labelled images keeps all of them
MAX_QUERIES = 1000


@dataclass(frozen=True)
class HeldOut:
    """Labelled images that training does not see.

    pixels (N,3,S,S) uint8, or features (N,1,E) float16 if a part of the network is frozen; labels
    (N,C) uint8. ``images``: where the pixels are, row by row, if ``pixels`` has features.
    """

    pixels: Tensor
    labels: Tensor
    images: Images | None = None

    def pictures(self, rows: Tensor) -> Tensor:
        """Returns images (R,3,S,S) uint8 of some rows; files are read again."""
        return (self.images or ArrayImages(self.pixels)).pixels(rows)


def hold_out(data: TrainingSet, share: float, seed: int) -> tuple[TrainingSet, HeldOut | None]:
    """Separates ``share`` of each class's labelled images, at least two, from the training set.

    A class with fewer than MIN_CLASS_SIZE labelled images keeps all of them. Returns the rest, and
    the held-out images or None if there are none. The unlabelled images are not copied, because
    they may take half of the memory.
    """
    chosen = chosen_rows(data.labels, share, seed)
    if not chosen.any():
        return data, None
    held = HeldOut(data.labelled[chosen], data.labels[chosen])
    labelled, labels = data.labelled[~chosen], data.labels[~chosen]
    unlabelled = labelled if data.all_labelled else data.unlabelled
    return replace(data, labelled=labelled, labels=labels, unlabelled=unlabelled), held


def chosen_rows(labels: Tensor, share: float, seed: int) -> Tensor:
    """Returns which images ``hold_out`` chooses by their labels (N,C): a mask (N,)."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = torch.zeros(len(order), dtype=torch.bool)
    counts = labels.sum(dim=0, dtype=torch.int64)
    rare = labels[:, counts < MIN_CLASS_SIZE].bool().any(dim=1)
    for of_class, count in zip(labels.T.bool(), counts.tolist(), strict=True):
        wanted = max(2, math.ceil(share * count)) if count >= MIN_CLASS_SIZE and share else 0
        rows = order[(of_class & ~rare & ~chosen)[order]]
        missing = wanted - int((of_class & chosen).sum())
        chosen[rows[: max(0, missing)]] = True
    return chosen


def mean_average_precision(features: Tensor, labels: Tensor, codebook: Codebook) -> float:
    """Returns the tie-aware mAP of images that are searched among each other.

    features (N,D) float32, labels (N,C) uint8; a hit is relevant if it shares a class. Every
    image is a query, or MAX_QUERIES of them evenly spaced. Queries without a relevant image do
    not count.
    """
    asked = spread(len(features), MAX_QUERIES)
    vectors = features.float().cpu().numpy()
    codes, lut = codebook.encode(vectors), codebook.lut(vectors[asked.numpy()])
    scores = np.zeros((len(lut), len(codes)), dtype=np.float32)
    for m in range(codebook.M):
        scores += lut[:, m, codes[:, m]]
    shared = (labels[asked.to(labels.device)].float() @ labels.float().T > 0).cpu().numpy()
    lines = zip(asked.tolist(), scores, shared, strict=True)
    found = (ranked(own, line, relevant, own) for own, line, relevant in lines)
    metrics = [ranking.metrics for ranking in found if ranking.relevant.any()]
    return mean_metrics(metrics).tie_aware_average_precision
