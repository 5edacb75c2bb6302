"""Feeds damaged input to everything that reads what strangers send.

``python -m tests.fuzz`` runs for a given time; ``test_fuzz.py`` runs each target for some seconds.
"""
