"""Measures filtered searches: the service's own, and those of other software."""
