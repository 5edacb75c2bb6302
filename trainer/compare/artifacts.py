"""Writes the network and the codebook of a method as an artifact, which a service can load."""

import time
from collections import OrderedDict
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gpq import __version__
from gpq.model import artifact
from trainer.artifacts import graph
from trainer.artifacts.saving import save
from trainer.compare.backbone import Backbone
from trainer.compare.material import Material
from trainer.compare.measure import Figures
from trainer.data.datasets import FOLDER, provenance
from trainer.data.image_sets import spread
from trainer.errors import TrainerError, writing
from trainer.methods import METHODS
from trainer.methods.base import CodebookCoder, Coder

EXAMPLES = 512  # images that the golden ones are chosen from


@dataclass(frozen=True)
class Artifacts:
    """The artifacts of one comparison, in folders of ``folder``.

    Raises TrainerError if graphs cannot be exported here.
    """

    backbone: Backbone
    material: Material
    folder: Path

    def __post_init__(self) -> None:
        if reason := graph.missing():
            raise TrainerError(f"--artifacts: no artifact can be written, because {reason}")

    def place(self, method: str, bits: int, seed: int) -> Path:
        return self.folder / f"{method}-{bits}-{seed}"

    def has(self, method: str, bits: int, seed: int) -> bool:
        """Whether a method has its artifact, or can have none."""
        place = self.place(method, bits, seed)
        return not METHODS[method].served or (place / artifact.CONFIG).is_file()

    def write(self, figures: Figures, coder: Coder) -> None:
        """Writes what was measured, unless it is no codebook behind a network."""
        if not isinstance(coder, CodebookCoder):
            return
        place = self.place(figures.method, figures.bits, figures.seed)
        with writing(place):
            write(place, figures, coder, self.backbone, self.material)


def write(
    folder: Path, figures: Figures, coder: CodebookCoder, backbone: Backbone, material: Material
) -> str:
    """Writes the artifact of one method; returns its id."""
    layers = OrderedDict(backbone=backbone.network, method=coder.network)
    network = nn.Sequential(layers).eval()
    compute = {"network": {"name": artifact.ENCODER}, "preprocess": asdict(backbone.rules)}
    make_graph = partial(graph.serialise, graph.export(network, backbone.size))
    about: dict[str, Any] = {
        "classes": list(material.classes),
        "training": {
            "recipe": "compare",
            "method": figures.method,
            "network": backbone.name,
            "size": backbone.size,
            "bits": figures.bits,
            "seed": figures.seed,
            "seconds": figures.learn_s,
            "date": time.strftime("%Y-%m-%d"),
            "versions": {"gpq": __version__, "torch": str(torch.__version__)},
        },
        "data": {
            **provenance(FOLDER),
            "labelled": len(material.labelled),
            "unlabelled": len(material.unlabelled),
        },
        "measured": None,
    }
    tensors = graph.tensors_of(network)
    id = save(folder, tensors, coder.codebook, make_graph, compute, about, _examples(material))
    config = artifact.read_config(folder)
    config["about"]["measured"] = {
        "mAP_tie_aware": figures.mAP,
        "precision_at_10": figures.precision_at_10,
        "bits": figures.bits,
        "n_query": figures.n_query,
        "n_database": figures.n_database,
        "unique_codes": figures.unique_codes,
        "largest_tie": figures.largest_tie,
        "model": id,
    }
    artifact.write_config(folder, config)
    return id


def _examples(material: Material) -> NDArray[np.uint8]:
    """Returns images (N,3,S,S), evenly spaced among those that methods learn from."""
    some = material.images.at(spread(len(material.images), EXAMPLES))
    return np.concatenate([chunk.pixels.numpy() for chunk in some.chunks("examples")])
