"""Writes a self-contained HTML page about a model: how it learnt, what it finds, where it fails.

May import trainer.training, trainer.evaluation, trainer.data and what those may.
"""
