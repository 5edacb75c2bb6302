"""Computes the training steps and keeps checkpoints. Imports trainer.data and recipes."""
