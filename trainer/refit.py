"""Recomputes the means of a finished model's codes and classes from other images."""

from dataclasses import replace
from pathlib import Path

from gpq.model import artifact
from trainer.cut import derive, require_free
from trainer.data.image_sets import training_set
from trainer.data.skipped import print_skipped
from trainer.export import MAX_AVERAGED, with_means


def refit(source: Path, data: Path, dataset: str, folder: Path, *, overwrite: bool = False) -> str:
    """Writes ``source`` with means computed from the images of ``data``; returns the new id.

    The codes stay the same; the scores become those expected among such images. Raises
    TrainerError if ``folder`` has a model and ``overwrite`` is false.
    """
    require_free(folder, overwrite=overwrite)
    model = artifact.load(source)
    images = training_set(data, dataset, model.rules, MAX_AVERAGED)
    print_skipped(images.skipped)
    codebook = with_means(model.codebook, model.network, images, model.rules)
    about = {name: value for name, value in model.about.items() if name != "golden"}
    about = {**about, "measured": None, "refitted_from": {"id": model.id}}
    about["classes"] = list(images.classes)
    network_config = artifact.read_config(source)["compute"]["network"]
    return derive(replace(model, codebook=codebook), network_config, about, folder)
