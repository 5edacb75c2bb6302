"""Keeps the original bytes of images, locally or remotely. Imports errors and gpq.system."""
