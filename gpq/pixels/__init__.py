"""Turns image bytes into checked pixels. Imports gpq.errors and gpq.system only."""
