"""Finds images that are copies of each other, by perceptual hashes."""
