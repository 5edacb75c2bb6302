"""Runs a model's network as fast as the machine allows. Imports gpq.model and what it imports."""
