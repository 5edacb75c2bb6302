"""Fetches images that requests name by their addresses, within limits."""
