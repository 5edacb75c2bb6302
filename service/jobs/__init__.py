"""Runs imports and re-indexing, which take long. Imports the catalogue and everything below it."""
