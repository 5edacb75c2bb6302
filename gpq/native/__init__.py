"""Loads compiled libraries, and holds the C++ headers they share. Imports nothing of gpq."""
