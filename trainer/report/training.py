"""Writes the report at the end of a training."""

import sys
from pathlib import Path

from torch import nn

from gpq.model.model import Model
from trainer.data.image_sets import TrainingSet
from trainer.errors import TrainerError, writing
from trainer.evaluation.collection import Collection, embed, embed_frozen, of_training
from trainer.evaluation.evaluate import require_searchable
from trainer.evaluation.holdout import HeldOut
from trainer.report.page import write_page

Frozen = tuple[nn.Module, TrainingSet, HeldOut | None]


def report_training(
    model: Model,
    images: TrainingSet,
    held_out: HeldOut | None,
    folder: Path,
    before: Model | None = None,
    frozen: Frozen | None = None,
) -> None:
    """Writes ``folder``/report.html, or prints why there is nothing to report.

    ``images`` and ``held_out``: the pixels that were trained on and those that were not.
    ``before``: the model that training started from. ``frozen``: the last layer after a frozen
    encoder, and the same images as features of that encoder.
    """
    collection = of_training(images, held_out)
    try:
        require_searchable(collection)
    except TrainerError as error:
        print(f"no report is written: {error}", file=sys.stderr)
        return
    after = embed_frozen(model, *frozen, collection) if frozen else embed(model, collection)
    earlier = embed(before, collection, "encoding, model before") if before else None
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
