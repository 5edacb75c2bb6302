"""Stores, reads and describes images. Imports models, index, originals and the database."""
