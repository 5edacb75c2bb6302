"""What a training starts from: codes and classifiers that are computed from features.

May import trainer.components and what that may.
"""
