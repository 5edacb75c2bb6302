"""Writes the network and the codebook of a method as an artifact, which a service can load."""

import sys
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
from tqdm import tqdm

from gpq import __version__
from gpq.errors import ArtifactError
from gpq.model import artifact
from trainer.artifacts import graph
from trainer.artifacts.saving import save
from trainer.compare.backbone import Backbone
from trainer.compare.material import Material
from trainer.compare.measure import Figures
from trainer.compare.runs import code_digest
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
        """Whether a method has the artifact of this material and of this code, or can have none."""
        try:
            about = artifact.read_config(self.place(method, bits, seed)).get("about", {})
        except ArtifactError:
            return not METHODS[method].served
        learnt_from = about.get("training", {}).get("learnt_from")
        return bool(about.get("measured")) and learnt_from == self._learnt_from

    def write(self, figures: Figures, coder: Coder) -> None:
        """Writes what was measured, unless it is no codebook behind a network.

        If no artifact can be made of it, as of codewords that coincide, the reason is printed.
        """
        if not isinstance(coder, CodebookCoder):
            return
        place = self.place(figures.method, figures.bits, figures.seed)
        try:
            with writing(place):
                self._write(place, figures, coder)
        except ArtifactError as error:
            name = f"{figures.method} at {figures.bits} bits"
            tqdm.write(f"{name} gets no artifact: {error}", file=sys.stderr)

    @property
    def _learnt_from(self) -> str:
        return f"{self.material.digest[:16]}-{code_digest()}"

    def _write(self, folder: Path, figures: Figures, coder: CodebookCoder) -> None:
        backbone, material = self.backbone, self.material
        labelled, unlabelled = material.learnt_from
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
                "learnt_from": self._learnt_from,
                "seconds": figures.learn_s,
                "date": time.strftime("%Y-%m-%d"),
                "versions": {"gpq": __version__, "torch": str(torch.__version__)},
            },
            "data": {
                **provenance(FOLDER),
                "labelled": labelled,
                "unlabelled": unlabelled,
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


def _examples(material: Material) -> NDArray[np.uint8]:
    """Returns images (N,3,S,S), evenly spaced among those that methods learn from."""
    some = material.images.at(spread(len(material.images), EXAMPLES))
    return np.concatenate([chunk.pixels.numpy() for chunk in some.chunks("examples")])
