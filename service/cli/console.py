"""Runs the command ``gpq``: it starts ``python -m service`` or ``python -m trainer``."""

import argparse
import os
import sys
from importlib.util import find_spec
from typing import NoReturn

from gpq import __version__

SERVE = "serve"
SERVICE = {
    SERVE: "run the search service, with GPQ_* settings",
    "doctor": "check the installation part by part",
    "import": "store many images",
    "duplicates": "group the stored images that are copies of each other",
    "models": "change the model while the service runs",
    "jobs": "show and cancel imports and re-indexes",
    "fields": "list, add and remove filter fields, on which new filters are quick",
    "keys": "create, list and revoke API keys",
    "export": "write images, codes and models to a file, for another database",
    "restore": "read an exported file into a database without images",
    "backup": "copy a SQLite database that is in use",
    "migrate": "migrate the database to a revision of the schema",
}
TRAINER = {
    "train": "learn a model from images",
    "quantise": "learn codes for a published network, from images of many kinds",
    "evaluate": "measure how well a model searches",
    "report": "write a report about a model",
    "cut": "make a model whose codes are the first bits of another's",
    "refit": "fit a finished model to other images",
    "compare": "measure every method of the paper on your own images",
    "reproduce": "reproduce the tables and figures of the paper",
    "upgrade": "convert a model to the newest format",
    "precision": "choose how precisely a model's network computes",
    "cache": "show or clear the features that trainings keep",
}


def main() -> NoReturn:
    """Replaces this process by the one that runs the command.

    Exits with status 1 if the command needs PyTorch and it is not installed, and with 2 on wrong
    usage.
    """
    parser = _parser()
    command, arguments = parser.parse_args(sys.argv[1:2]).command, sys.argv[2:]
    if command in TRAINER:
        if find_spec("torch") is None:
            install = "pip install 'gpq-search[train]'"
            parser.exit(
                1, f"error: gpq {command} needs PyTorch, which is missing; run: {install}\n"
            )
        _replace_process("trainer", command, *arguments)
    if command != SERVE:
        _replace_process("service", command, *arguments)
    if arguments not in ([], ["-h"], ["--help"]):
        parser.error(f"serve takes no arguments, but these were given: {' '.join(arguments)}")
    _replace_process("service", *arguments)


def _parser() -> argparse.ArgumentParser:
    lists = [
        _list("the service:", SERVICE),
        _list("the trainer, which needs the extra train (gpq-search[train]):", TRAINER),
        "gpq COMMAND --help describes a command.",
    ]
    parser = argparse.ArgumentParser(
        prog="gpq",
        usage="gpq [--help] [--version] COMMAND ...",
        description="Image search that learns its own index.",
        epilog="\n\n".join(lists),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gpq {__version__}")
    parser.add_argument(
        "command", choices=[*SERVICE, *TRAINER], metavar="COMMAND", help="one of those below"
    )
    return parser


def _list(title: str, commands: dict[str, str]) -> str:
    return "\n".join([title, *(f"  {name:10} {about}" for name, about in commands.items())])


def _replace_process(package: str, *arguments: str) -> NoReturn:
    # -P: a folder "service" or "trainer" in the current folder is not imported.
    os.execv(sys.executable, [sys.executable, "-P", "-m", package, *arguments])
