"""Counts and measures what a process does. Imports nothing of the service."""
