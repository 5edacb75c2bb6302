"""The command ``reproduce``: makes the runs, then draws the table or the figure."""

import argparse

from trainer.errors import TrainerError
from trainer.reproduce import on_features, trainings


def reproduce(options: argparse.Namespace) -> None:
    """Reproduces a table or a figure. Raises TrainerError if a run fails or no data is given."""
    data = {"cifar10": options.data, "nuswide": options.nuswide}
    given = {name: folder for name, folder in data.items() if folder}
    if not given:
        raise TrainerError("give --data (CIFAR-10), --nuswide, or both")
    of_training = options.steps or options.more
    of_features = options.network or options.size or options.seeds
    if options.recipe is None and of_training:
        raise TrainerError("--steps and further options are those of a training: give --recipe")
    if options.recipe and of_features:
        raise TrainerError(
            "--network, --size and --seeds are those of methods on features: leave out --recipe, "
            "or give options of train after --"
        )
    if options.figure and (options.seeds or options.runs):
        raise TrainerError("--seeds and --runs are those of tables: leave them out")
    if options.methods and ((options.recipe and options.figure) or options.figure in (4, 5)):
        raise TrainerError(
            "--methods is for tables, and for figure 3 on features: the others show GPQ"
        )
    for dataset in given:
        if options.recipe:
            trainings.reproduce(options, dataset, given)
        else:
            on_features.reproduce(options, dataset, given[dataset])
