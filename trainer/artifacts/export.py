"""Writes trained weights as an artifact, and starts a run from one for ``--init``."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from gpq.engine.torch_architectures import ClassProject
from gpq.model.codebook import Codebook, intra_normalise
from gpq.pixels.preprocess import Preprocess
from trainer.artifacts import graph
from trainer.artifacts.saving import MakeGraph, Tensors, save
from trainer.components.assignment import separate
from trainer.components.model import GPQ
from trainer.components.source import Source
from trainer.components.teacher import class_means, labelled_rows
from trainer.components.views import Views, views_of
from trainer.config import Architecture, Config
from trainer.data.datasets import provenance
from trainer.data.image_sets import TrainingSet, spread
from trainer.errors import TrainerError

EXAMPLES = 2048  # images that the golden ones are chosen from
MAX_AVERAGED = 16_384  # images that the means of codes and of classes are computed from
LAST_LAYER = (
    "project.weight", "project.bias", "project.classes.weight", "project.classes.bias",
)  # fmt: skip
UPGRADE_LATER = "only torch can run it; upgrade it elsewhere with `python -m trainer upgrade`"
DEAD_LENGTH = 0.99  # a codebook is dead if the mean of its unit sub-vectors is longer


@dataclass(frozen=True)
class Finished:
    """What an artifact has of a network: its description, its tensors and what makes its graph."""

    described: dict[str, Any]
    tensors: Tensors
    make_graph: MakeGraph | None


def export(
    model: GPQ,
    config: Config,
    rules: Preprocess,
    data: TrainingSet,
    examples: NDArray[np.uint8],
    folder: Path,
    training: dict[str, Any],
    finish: Callable[[nn.Module], Finished] | None = None,
) -> str:
    """Writes the artifact of ``model`` to ``folder``; returns its id.

    The artifact has the codewords Z', but not the prototypes C. ``examples``: images from which the
    golden ones are chosen (``examples_of``). ``finish``: makes the whole network, if ``data`` holds
    features of a frozen part of it.
    """
    network = model.F.eval()
    rows, known = (
        spread(len(pixels), MAX_AVERAGED).to(pixels.device)
        for pixels in (data.unlabelled, data.labelled)
    )
    with torch.no_grad():
        words = separate(model.codewords().float().cpu())
        views = views_of(data, rules, next(network.parameters()).device)
        codes = _features(network, data.unlabelled, rows, views, "means of codes")
        classes = _features(network, data.labelled, known, views, "means of classes")
    codebook = with_means(
        Codebook(words.numpy()),
        codes.cpu().numpy(),
        classes.cpu().numpy(),
        data.labels[known].cpu().numpy(),
    )
    if (learnt := model.learnt_means()) is not None:
        moved = (words != model.codewords().detach().float().cpu()).any(dim=2, keepdim=True)
        codebook = replace(codebook, means=torch.where(moved, words, learnt.float().cpu()).numpy())
    about = {
        "classes": list(data.classes),
        "training": {**asdict(config), **training},
        "data": {
            **provenance(config.dataset),
            "labelled": len(data.labelled),
            "unlabelled": len(data.unlabelled),
            "skipped": len(data.skipped),
        },
        "measured": None,
    }
    whole = finish(network) if finish else finished(network, config.built)
    compute = {"network": whole.described, "preprocess": asdict(rules)}
    return save(folder, whole.tensors, codebook, whole.make_graph, compute, about, examples)


def finished(network: nn.Module, built: Architecture) -> Finished:
    """Returns what an artifact has of a network of the project.

    Without the packages that export graphs it has no graph, which is printed.
    """
    tensors, make_graph = graph.tensors_of(network), None
    if reason := graph.missing():
        print(f"the model gets no graph, because {reason}: {UPGRADE_LATER}", file=sys.stderr)
    else:
        make_graph = partial(graph.serialise, graph.export(network, built.size))
    described: dict[str, Any] = {"name": built.network, "width": built.width}
    last = network.get_submodule("project")
    if isinstance(last, ClassProject):
        described["classes"] = last.classes.out_features
    return Finished(described, tensors, make_graph)


def examples_of(images: TrainingSet) -> NDArray[np.uint8]:
    """Returns some of the labelled images (N,3,S,S), evenly spaced over all classes."""
    every = max(1, len(images.labelled) // EXAMPLES)
    rows = torch.arange(0, len(images.labelled), every)[:EXAMPLES]
    return images.labelled_pixels(rows).numpy()


def with_means(
    codebook: Codebook,
    unlabelled: NDArray[np.float32],
    labelled: NDArray[np.float32],
    labels: NDArray[np.uint8],
) -> Codebook:
    """Returns the codebook with the means of codes and of classes.

    ``unlabelled``: features (U,D) that the means of codes are computed from. ``labelled``: features
    (L,D) of images with ``labels`` (L,C), that the means of classes are computed from.
    """
    x = torch.from_numpy(intra_normalise(labelled, codebook.M))
    classes = class_means(x, torch.from_numpy(labels)).numpy()
    return replace(codebook, means=codebook.means_of(unlabelled), classes=classes)


@torch.no_grad()
def start_from(
    model: GPQ,
    source: Source,
    data: TrainingSet,
    rules: Preprocess,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Sets F and Z from an artifact, and C to the means of the features of each class.

    ``weights``: the tensors of F, if it is only a part of the artifact's network.

    The artifact may be for another image size and other classes. A shorter code begins with the
    first codebooks of a longer one. If the last layer does not fit, because of more bits, more
    features or sub-vectors of another length, that layer and Z keep their random values. So does
    the part of dead codebooks, which have no gradient that would turn them. The recipe ``modern``
    then sets the codewords of classes to the means. Raises TrainerError if the artifact has another
    network.
    """
    rows = labelled_rows(data)
    weights = source.network.state_dict() if weights is None else weights
    drawn = {name: t.clone() for name, t in model.F.state_dict().items() if name in LAST_LAYER}
    last = {name: weights[name][: len(t)] for name, t in drawn.items() if name in weights}
    Z = torch.tensor(source.artifact.codebook.Z)
    same_features = Z.shape[2] == model.Z.shape[2] and all(
        name in last and last[name].shape == t.shape for name, t in drawn.items()
    )
    body = {name: t for name, t in weights.items() if name not in LAST_LAYER}
    load_body(model.F, {**body, **(last if same_features else {})})
    views = views_of(data, rules, next(model.F.parameters()).device)
    was_training = model.training
    model.eval()
    if not same_features:
        print(
            "the last layer and the codewords start at random, because those of --init are for "
            "other sub-vectors",
            file=sys.stderr,
        )
    if same_features:
        raw = _features(model.F, data.labelled, rows, views, "dead codebooks")
        dead = _dead_codebooks(model.sub_vectors(raw))
        alive = [m for m in range(model.M) if m not in dead]
        model.Z[alive] = Z[alive].to(model.Z)
        shape = (model.M, -1)
        for name, first in drawn.items():
            taken = model.F.get_parameter(name)
            taken.view(shape)[dead] = first.view(shape)[dead]
    raw = _features(model.F, data.labelled, rows, views, "means of classes")
    x = model.class_part(model.sub_vectors(raw))
    model.train(was_training)
    model.C.copy_(functional.normalize(class_means(x, data.labels[rows]), dim=-1))


def load_body(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Loads weights into a network, whose last layer may be missing among them.

    Raises TrainerError if they are of another network.
    """
    try:
        found = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise TrainerError(
            f"--init: the artifact has another network than this run: {error}"
        ) from error
    missing = sorted(set(found.missing_keys).difference(LAST_LAYER))
    if missing or found.unexpected_keys:
        which = f"lacks {missing[0]}" if missing else f"also has {found.unexpected_keys[0]}"
        raise TrainerError(f"--init: the artifact has another network than this run: it {which}")


def _features(network: nn.Module, images: Tensor, rows: Tensor, views: Views, what: str) -> Tensor:
    """Returns the raw features (R,D) float32 of some rows of images (N,…).

    They are on the network's device. ``what``: a name for the progress bar.
    """
    device = next(network.parameters()).device
    parts = []
    for part in tqdm(torch.split(rows, 256), desc=what, unit="batch", leave=False):
        seen = views.plain(images[part].to(device))
        parts.append(network(views.network_input(seen)).float())
    return torch.cat(parts)


def _dead_codebooks(x: Tensor) -> list[int]:
    """Returns the codebooks in which all of the (N,M,d) unit sub-vectors point in one direction."""
    return torch.nonzero(x.mean(dim=0).norm(dim=-1) > DEAD_LENGTH).flatten().tolist()
