"""Bounds and batches concurrent work. Imports telemetry, errors and settings."""
