"""Errors the trainer raises on purpose; the command line prints them without a traceback."""


class TrainerError(Exception):
    """Input or configuration that cannot be trained on; the message says what to do."""
