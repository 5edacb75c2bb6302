"""Holds out labelled images from training, to find the step at which the model is best."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gpq.model.codebook import Codebook
from trainer.data.image_sets import TrainingSet, spread
from trainer.data.images import ArrayImages, Images
from trainer.evaluation.metrics import mean_metrics
from trainer.evaluation.ranking import ranked

MIN_CLASS_SIZE = 5  # labelled images from which every class has held-out ones
MAX_QUERIES = 1000
MAX_SEARCHED = 2000  # images in the database of a check


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
    """Separates ``share`` of the labelled images from the training set.

    A class of MIN_CLASS_SIZE images or more gives its share, at least one. Of the smaller classes,
    as many as correspond to the share give one image each. They are evenly spaced. Every class
    that has images keeps at least one. Returns the rest, and the held-out images or None if there
    are none. The unlabelled images are not copied, because they may take half of the memory.
    """
    chosen = chosen_rows(data.labels, share, seed)
    if not chosen.any():
        return data, None
    held = HeldOut(data.labelled[chosen], data.labels[chosen])
    labelled, kept = data.labelled[~chosen], data.labels[~chosen]
    unlabelled = labelled if data.all_labelled else data.unlabelled
    return replace(data, labelled=labelled, labels=kept, unlabelled=unlabelled), held


def chosen_rows(labels: Tensor, share: float, seed: int) -> Tensor:
    """Returns which images ``hold_out`` chooses by their labels (N,C): a mask (N,)."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    labels = labels.bool()
    chosen = torch.zeros(len(order), dtype=torch.bool)
    if share:
        counts = labels.sum(dim=0)
        rare = labels[:, counts < MIN_CLASS_SIZE].any(dim=1)
        for c in torch.nonzero(counts >= MIN_CLASS_SIZE).flatten().tolist():
            wanted = max(1, math.ceil(share * int(counts[c])))
            rows = order[(labels[:, c] & ~rare & ~chosen)[order]]
            missing = wanted - int((labels[:, c] & chosen).sum())
            chosen[rows[: max(0, missing)]] = True
        small = torch.nonzero((counts > 1) & (counts < MIN_CLASS_SIZE)).flatten()
        wanted = round(share * int(counts[small].sum()))
        for c in small[spread(len(small), wanted)].tolist():
            if not (labels[:, c] & chosen).any():
                chosen[order[labels[order, c]][0]] = True
        _keep_one_of_each(labels, chosen)
    return chosen


def _keep_one_of_each(labels: Tensor, chosen: Tensor) -> None:
    """Takes an image out of ``chosen`` for each class that has all of its images there."""
    for of_class in labels.T:
        if of_class.any() and not (of_class & ~chosen).any():
            chosen[torch.nonzero(of_class)[0]] = False


class Check:
    """A search of held-out images among each other and among those that are trained on.

    The queries are the held-out images, or MAX_QUERIES of them. The database has at most
    MAX_SEARCHED images, the queries among them. All are evenly spaced. Images are pixels (N,3,S,S)
    uint8 or features of an encoder (N,V,E).
    """

    def __init__(self, data: TrainingSet, held_out: HeldOut) -> None:
        self._data, self._held_out = data, held_out
        self._asked = spread(len(held_out.labels), MAX_QUERIES)
        self._trained = spread(len(data.labels), MAX_SEARCHED - len(self._asked))
        parts = (
            held_out.labels[self._asked].cpu(),
            data.labels[self._trained.to(data.labels.device)],
        )
        self._labels = torch.cat([part.cpu() for part in parts])

    def mAP(self, embed: Callable[[Tensor], Tensor], codebook: Codebook) -> float:
        """Returns the tie-aware mAP. ``embed``: images -> features (N,D) float32."""
        images = self._held_out.pixels, self._data.labelled
        rows = self._asked, self._trained
        parts = [embed(of_all[r.to(of_all.device)]) for of_all, r in zip(images, rows, strict=True)]
        features = torch.cat([part.float().cpu() for part in parts])
        return mean_average_precision(features, self._labels, len(self._asked), codebook)


def mean_average_precision(
    features: Tensor, labels: Tensor, queries: int, codebook: Codebook
) -> float:
    """Returns the tie-aware mAP of the first images, each searched among all others.

    features (N,D) float32, labels (N,C) uint8; a hit is relevant if it shares a class. Queries
    without a relevant image do not count.
    """
    vectors = features.numpy()
    codes, lut = codebook.encode(vectors), codebook.lut(vectors[:queries])
    scores = np.zeros((len(lut), len(codes)), dtype=np.float32)
    for m in range(codebook.M):
        scores += lut[:, m, codes[:, m]]
    shared = (labels[:queries].float() @ labels.float().T > 0).numpy()
    found = (ranked(q, scores[q], shared[q], q) for q in range(len(lut)))
    metrics = [ranking.metrics for ranking in found if ranking.relevant.any()]
    return mean_metrics(metrics).tie_aware_average_precision
