"""Checks the fields of requests."""
