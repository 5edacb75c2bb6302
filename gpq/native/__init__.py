"""Loads the compiled C++ libraries and holds the headers that they share.

Imports no other package of gpq.
"""
