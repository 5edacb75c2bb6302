"""Counts and measures what a process does. Imports settings only."""
