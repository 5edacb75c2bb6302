"""Wraps the operating system: files, memory, processors and devices.

May import ``gpq.errors`` only.
"""
