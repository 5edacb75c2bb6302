"""Learns codes for the features of a published network, from images without labels."""
