"""Predicts labels of unlabelled images with a finished model (Noisy Student, Xie et al. 2020)."""

import torch
from torch import Tensor
from tqdm import tqdm

from gpq.engine import torch_pixels
from trainer import distributed
from trainer.components import augment, losses
from trainer.components.assignment import intra_normalise
from trainer.components.source import Source
from trainer.data.image_sets import TrainingSet, spread
from trainer.device import autocast
from trainer.errors import TrainerError

VIEWS = 4  # weak views of each image; wrong predictions tend to differ between them
MAX_AVERAGED = 4096  # labelled images that the means of classes are computed from
BATCH = 512


def class_means(x: Tensor, labels: Tensor) -> Tensor:
    """x (B,M,d) unit sub-vectors, labels (B,L) -> (M,L,d) mean of each class, of length up to 1.

    An image of several classes counts for each of them in equal shares. The mean of a class
    without images is zero.
    """
    of_class = losses.class_target(labels).T
    sums = torch.einsum("lb,bmd->mld", of_class, x)
    return sums / of_class.sum(dim=1)[None, :, None].clamp(min=1e-6)


def labelled_rows(data: TrainingSet) -> Tensor:
    """Returns the rows of the labelled images that the means of classes are computed from."""
    return spread(len(data.labelled), MAX_AVERAGED).to(data.labelled.device)


@torch.no_grad()
def guess(teacher: Source, data: TrainingSet, seed: int) -> Tensor:
    """Returns the probability (U,L) float32 of each class for each unlabelled image.

    It is the mean over VIEWS of the softmax of beta² times the mean cosine with the means of the
    classes. Those are computed from the labelled images, because the teacher may have been trained
    on other classes. Raises TrainerError if the teacher needs images of another size.
    """
    rows = labelled_rows(data)
    known = data.labelled_pixels(rows)
    size = known.shape[-1]
    if teacher.size != size:
        raise TrainerError(
            f"--teacher: it needs images of {teacher.size} pixels, not of --size {size}"
        )
    device = next(teacher.network.parameters()).device
    x = _sub_vectors(teacher, known.to(device).float())
    means = class_means(x, data.labels[rows].to(device))
    generator = torch.Generator(device).manual_seed(seed)
    found = []
    parts = torch.split(torch.arange(len(data.unlabelled)), BATCH)
    for part in tqdm(parts, desc="teacher", unit="batch", disable=not distributed.is_first()):
        pixels = data.unlabelled_pixels(part)
        views = [augment.weak(pixels.to(device), generator) for _ in range(VIEWS)]
        logits = losses.prototype_logits(_sub_vectors(teacher, torch.cat(views)), means)
        likely = torch.softmax(logits.mean(dim=1), dim=-1)
        found.append(likely.view(VIEWS, len(pixels), -1).mean(dim=0))
    return torch.cat(found).to(data.unlabelled.device)


def _sub_vectors(teacher: Source, views: Tensor) -> Tensor:
    """(B,3,S,S) float32, 0-255 -> (B,M,d)."""
    parts = []
    with autocast(views.device):
        for part in torch.split(views, BATCH):
            images = torch_pixels.normalise(teacher.artifact.rules, part).contiguous(
                memory_format=torch.channels_last
            )
            parts.append(teacher.network(images).float())
    return intra_normalise(torch.cat(parts), teacher.artifact.codebook.M)
