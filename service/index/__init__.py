"""Keeps the codes in memory and follows the database's feed. Imports the database and gpq."""
