"""The options of the command line."""

import argparse

from trainer.arguments import comparing, learning, models


def parser() -> argparse.ArgumentParser:
    """Returns the parser; its ``command`` is the name of a command."""
    words = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    commands = words.add_subparsers(
        required=True,
        metavar="train|quantise|evaluate|report|cut|refit|precision|upgrade|compare|reproduce|cache",
    )
    learning.add_train(commands)
    learning.add_quantise(commands)
    models.add_measures(commands)
    models.add_cut_and_refit(commands)
    models.add_precision(commands)
    models.add_upgrade(commands)
    comparing.add_compare(commands)
    comparing.add_reproduce(commands)
    models.add_cache(commands)
    return words
