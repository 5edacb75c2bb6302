"""Writes artifacts: of trained networks, of other artifacts, and of encoders given as graphs."""
