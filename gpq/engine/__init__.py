"""Runs the network of a model as fast as the machine allows.

May import ``gpq.model``, ``gpq.winograd`` and the packages below them.
"""
