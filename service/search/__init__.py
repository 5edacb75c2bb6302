"""Finds the nearest stored images."""
