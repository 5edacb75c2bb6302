"""The options of each command of the trainer.

May import trainer.reproduce and what that may.
"""
