"""Trains on the features of a frozen part of the network, which are computed once and cached.

May import trainer.artifacts, trainer.evaluation, trainer.components and what those may.
"""
