"""Starts real servers and makes images and models, for tests and benchmarks."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
