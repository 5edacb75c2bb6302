"""Makes a model with shorter codes from the first codebooks of a model with nested codes."""

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
    """Writes an artifact whose codes are the first ``bits`` bits of ``source``'s; returns its id.

    Its scores are those of the first codebooks. Raises TrainerError if ``bits`` is not a multiple
    of 4 below the source's code length, or if ``folder`` has a model and ``overwrite`` is false.
    """
    require_free(folder, overwrite=overwrite)
    model = artifact.load(source)
    if bits % 4 or not 0 < bits < model.bits:
        raise TrainerError(
            f"{source} has codes of {model.bits} bits, which cannot be cut to {bits}: give a "
            f"multiple of 4 below {model.bits}"
        )
    compute = artifact.read_config(source)["compute"]
    codebook = model.codebook.first(bits // 4)
    dimension = codebook.M * codebook.Z.shape[2]
    network_config = compute["network"]
    net = network.build(network_config["name"], dimension, network_config["width"])
    weights = model.network.state_dict()
    for name in ("project.weight", "project.bias"):
        weights[name] = weights[name][:dimension].clone()
    net.load_state_dict(weights)
    about = {name: value for name, value in model.about.items() if name != "golden"}
    about = {**about, "measured": None, "cut_from": {"id": model.id, "bits": model.bits}}
    return derive(
        replace(model, network=net.eval(), codebook=codebook), network_config, about, folder
    )


def require_free(folder: Path, *, overwrite: bool) -> None:
    """Raises TrainerError if ``folder`` has a model that must not be overwritten."""
    if (folder / artifact.WEIGHTS).exists() and not overwrite:
        raise TrainerError(
            f"--out: {folder} already has a model: name another folder, or give --overwrite"
        )


def derive(
    model: Model, network_config: dict[str, Any], about: dict[str, Any], folder: Path
) -> str:
    """Writes a model made from a finished one, with its golden images; returns the new id."""
    images = [decode.load(base64.b64decode(v["png"])) for v in model.about["golden"]]
    examples = np.stack([model.prepare(image) for image in images])
    with writing(folder):
        return artifact.save(
            folder, model.network, model.codebook, network_config, model.rules, about, examples
        )
