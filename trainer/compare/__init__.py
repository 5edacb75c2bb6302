"""Compares the methods of ``trainer.methods`` on the same features of the same images.

May import trainer.methods, trainer.frozen, trainer.artifacts, trainer.options and what those may.
"""
