"""Makes model artifacts of the trainer's networks, with random weights; needs torch."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from gpq.engine import torch_architectures
from gpq.model.codebook import Codebook, intra_normalise
from gpq.pixels.preprocess import JPEG_WHOLE, Preprocess
from trainer.artifacts import graph
from trainer.artifacts.saving import save

d = 12  # dimension of a sub-vector


def make_trained_artifact(
    folder: Path,
    seed: int = 0,
    M: int = 12,
    *,
    name: str = "resnet",
    width: int | None = 4,
    size: int = 32,
    jpeg: str = JPEG_WHOLE,
    examples: int = 256,
) -> str:
    """Writes a valid artifact with random weights to ``folder``, and returns its id.

    It lacks a graph where none can be exported. ``M``: number of codebooks. ``name``, ``width``:
    the network, see ``torch_architectures.build``. ``size``, ``jpeg``: see ``Preprocess``.
    ``examples``: number of random images from which the golden vectors are chosen.
    """
    torch.manual_seed(seed)
    network = torch_architectures.build(name, M * d, width).eval()
    random = np.random.default_rng(seed)
    words = intra_normalise(random.standard_normal((16, M * d), dtype=np.float32), M)
    codebook = Codebook(np.ascontiguousarray(words.transpose(1, 0, 2)))
    make_graph = None
    if not graph.missing():
        make_graph = partial(graph.serialise, graph.export(network, size))
    return save(
        folder,
        graph.tensors_of(network),
        codebook,
        make_graph,
        {
            "network": {"name": name, "width": width},
            "preprocess": asdict(Preprocess(size, jpeg=jpeg)),
        },
        {"classes": ["a", "b"], "measured": None},
        random.integers(0, 256, (examples, 3, size, size), dtype=np.uint8),
    )
