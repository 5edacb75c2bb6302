"""Methods that learn no network: they rotate, project or cluster the given features.

May import trainer.methods.base and what that may.
"""
