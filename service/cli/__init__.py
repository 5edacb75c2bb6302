"""Runs the commands of ``python -m service``. Imports the application and everything below it."""
