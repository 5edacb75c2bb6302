"""Writes the report at the end of a training."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from gpq.model.model import Model
from trainer.data.image_sets import TrainingSet
from trainer.errors import TrainerError, writing
from trainer.evaluation.collection import Collection, embed, embed_features, of_training
from trainer.evaluation.evaluate import require_searchable
from trainer.evaluation.holdout import HeldOut
from trainer.report.page import write_page

Compute = Callable[[Tensor], Tensor]


def report_training(
    model: Model,
    images: TrainingSet,
    held_out: HeldOut | None,
    folder: Path,
    before: Model | None = None,
    rest: Compute | None = None,
    rest_before: Compute | None = None,
) -> None:
    """Writes ``folder``/report.html, or prints why there is nothing to report.

    ``images`` and ``held_out``: what was trained on and what was not. ``before``: the model that
    training started from; if its codes are longer, their first bits are compared. ``rest`` and
    ``rest_before``: what both models compute after the frozen part of the network, (B,V,E) to
    (B,D), if the images are its features.
    """
    collection = of_training(images, held_out)
    try:
        require_searchable(collection)
    except TrainerError as error:
        print(f"no report is written: {error}", file=sys.stderr)
        return
    if rest is None:
        after = embed(model, collection)
    else:
        after = embed_features(model, rest, images, held_out, collection)
    earlier = None
    if before:
        before = _cut(before, model.codebook.M)
        earlier = (
            embed_features(before, rest_before, images, held_out, collection)
            if rest_before
            else embed(before, collection, "encoding, model before")
        )
    what, seen = describe(collection, held_out), held_out is None
    if before and before.rules.size != model.rules.size:
        what += f"; the earlier model got them scaled to its {before.rules.size} pixels a side"
    with writing(folder):
        path = write_page(after, model.about, collection, what, folder, earlier, seen=seen)
    print(f"wrote {path}", file=sys.stderr)


def describe(collection: Collection, held_out: HeldOut | None) -> str:
    """Describes what a report on a training is about."""
    if held_out is None:
        of = "Labelled images that were trained on, so that others will be found less well"
    else:
        of = "Labelled images that training did not see"
    if collection.unlabelled < collection.of_unlabelled:
        of += (
            f"; of {collection.of_unlabelled:,} unlabelled images, "
            f"{collection.unlabelled:,} evenly spaced ones are searched"
        )
    return of


def _cut(model: Model, M: int) -> Model:
    """Returns the model with at most the first M codebooks."""
    return replace(model, codebook=model.codebook.first(min(M, model.codebook.M)))
