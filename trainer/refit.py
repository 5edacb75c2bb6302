"""What codes and classes of a finished model look like, learnt anew from other pictures."""

from dataclasses import replace
from pathlib import Path

from gpq.model import artifact
from trainer.cut import derive, require_free
from trainer.data.image_sets import training_set
from trainer.data.skipped import print_skipped
from trainer.export import MAX_AVERAGED, with_means


def refit(source: Path, data: Path, dataset: str, folder: Path, *, overwrite: bool = False) -> str:
    """Write ``source`` with the means of ``data``'s pictures and classes; returns its id.

    Its codes are the source's, its scores what is to be expected among such pictures.
    Raises TrainerError where another model would be lost.
    """
    require_free(folder, overwrite=overwrite)
    model = artifact.load(source)
    images = training_set(data, dataset, model.rules, MAX_AVERAGED)
    print_skipped(images.skipped)
    codebook = with_means(model.codebook, model.network, images, model.rules)
    about = {name: value for name, value in model.about.items() if name != "golden"}
    about = {**about, "measured": None, "refitted_from": {"id": model.id}}
    about["classes"] = list(images.classes)
    described = artifact.read_config(source)["compute"]["network"]
    return derive(replace(model, codebook=codebook), described, about, folder)
