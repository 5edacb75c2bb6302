"""Defines the bodies of replies."""
