"""Holds all SQL, one module for each subject. Imports concurrency and what lies below it."""
