"""Loads models and encodes images with them. Imports the index, the database and gpq."""
