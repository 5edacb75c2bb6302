"""Measures how well a model searches. Imports trainer.data and gpq."""
