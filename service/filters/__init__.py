"""Filters: which images belong to them, and the masks that searches use."""
