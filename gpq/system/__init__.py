"""Wraps the operating system: files, memory, processors, devices. Imports gpq.errors only."""
