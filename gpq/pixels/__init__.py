"""Decodes image files and prepares their pixels for a network.

May import ``gpq.system`` and ``gpq.errors``.
"""
