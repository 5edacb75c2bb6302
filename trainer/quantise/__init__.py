"""Learns codes for the features of a published network."""
