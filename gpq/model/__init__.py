"""Loads, saves and computes models. Imports gpq.pixels, gpq.system and gpq.errors."""
