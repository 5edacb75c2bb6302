"""Networks, codebooks and artifacts: how a model is computed, saved and loaded.

May import ``gpq.pixels``, ``gpq.system`` and ``gpq.errors``.
"""
