"""Keeps the codes in memory and follows the feed. Imports the database and what lies below it."""
