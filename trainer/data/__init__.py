"""Reads labelled and unlabelled images. Imports trainer.errors, trainer.device and gpq."""
