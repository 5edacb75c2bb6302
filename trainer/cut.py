"""A model of shorter codes from one of nested codes: its first codebooks."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gpq.model import artifact, network
from gpq.model.model import Model
from gpq.pixels import decode
from trainer.errors import TrainerError, writing


def cut(source: Path, bits: int, folder: Path, *, overwrite: bool = False) -> str:
    """Write the artifact of the first ``bits`` bits of ``source``'s codes; returns its id.

    Its codes are the first bits of the source's, its scores those of the first codebooks.
    Raises TrainerError where ``bits`` is no multiple of 4 below the source's, and where
    another model would be lost.
    """
    require_free(folder, overwrite=overwrite)
    model = artifact.load(source)
    if bits % 4 or not 0 < bits < model.bits:
        raise TrainerError(f"{source} has codes of {model.bits} bits: none of {bits} can be cut")
    compute = artifact.read_config(source)["compute"]
    codebook = model.codebook.first(bits // 4)
    dimension = codebook.M * codebook.Z.shape[2]
    described = compute["network"]
    net = network.build(described["name"], dimension, described["width"])
    weights = model.network.state_dict()
    for name in ("project.weight", "project.bias"):
        weights[name] = weights[name][:dimension].clone()
    net.load_state_dict(weights)
    about = {name: value for name, value in model.about.items() if name != "golden"}
    about = {**about, "measured": None, "cut_from": {"id": model.id, "bits": model.bits}}
    return derive(replace(model, network=net.eval(), codebook=codebook), described, about, folder)


def require_free(folder: Path, *, overwrite: bool) -> None:
    """Raises TrainerError where another model would be lost."""
    if (folder / artifact.WEIGHTS).exists() and not overwrite:
        raise TrainerError(f"--out: {folder} has a model: name another folder, or --overwrite it")


def derive(model: Model, described: dict[str, Any], about: dict[str, Any], folder: Path) -> str:
    """Write what was made of a finished model, checked by its golden pictures; returns the id."""
    images = [decode.load(base64.b64decode(v["png"])) for v in model.about["golden"]]
    examples = np.stack([model.prepare(image) for image in images])
    with writing(folder):
        return artifact.save(
            folder, model.network, model.codebook, described, model.rules, about, examples
        )
