"""Reads labelled and unlabelled images into memory.

May import the modules distributed, device, config and errors, and gpq.
"""
