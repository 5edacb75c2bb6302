"""Runs a training: steps, checks on held-out images, checkpoints.

May import trainer.recipes, trainer.components, trainer.evaluation, trainer.data and what those may.
"""
