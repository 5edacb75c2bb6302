"""Codebooks and artifacts: how a model is computed, saved, checked and loaded.

May import ``gpq.pixels``, ``gpq.system`` and ``gpq.errors``.
"""
