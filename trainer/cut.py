"""A model of shorter codes from one of nested codes: its first codebooks."""

import base64
from pathlib import Path

import numpy as np

from gpq import artifact, decode, network
from gpq.codebook import Codebook
from trainer.errors import TrainerError, writing


def cut(source: Path, bits: int, folder: Path, *, overwrite: bool = False) -> str:
    """Write the artifact of the first ``bits`` bits of ``source``'s codes; returns its id.

    Its codes are the first bits of the source's, its scores those of the first codebooks.
    Raises TrainerError where ``bits`` is no multiple of 4 below the source's, and where
    another model would be lost.
    """
    if (folder / artifact.WEIGHTS).exists() and not overwrite:
        raise TrainerError(f"--out: {folder} has a model: name another folder, or --overwrite it")
    model = artifact.load(source)
    if bits % 4 or not 0 < bits < model.bits:
        raise TrainerError(f"{source} has codes of {model.bits} bits: none of {bits} can be cut")
    compute = artifact.read_config(source)["compute"]
    Z = model.codebook.Z[: bits // 4].clone()
    dimension = Z.shape[0] * Z.shape[2]
    described = compute["network"]
    net = network.build(described["name"], dimension, described["width"])
    weights = model.network.state_dict()
    for name in ("project.weight", "project.bias"):
        weights[name] = weights[name][:dimension].clone()
    net.load_state_dict(weights)
    about = {name: value for name, value in model.about.items() if name != "golden"}
    about = {**about, "measured": None, "cut_from": {"id": model.id, "bits": model.bits}}
    images = [decode.load(base64.b64decode(v["png"])) for v in model.about["golden"]]
    examples = np.stack([model.prepare(image) for image in images])
    with writing(folder):
        return artifact.save(
            folder, net.eval(), Codebook(Z), described, model.rules, about, examples
        )
