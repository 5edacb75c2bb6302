"""Translates between HTTP and the service; the only package that knows status codes.

Imports the runtime and everything below it.
"""
