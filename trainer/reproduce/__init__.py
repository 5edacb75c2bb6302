"""Reproduces the tables and figures of the GPQ paper, run by run.

May import trainer.report, trainer.training, trainer.data and what those may.
"""
