"""Methods that learn a layer over the given features, by the losses of their papers.

May import trainer.methods.base, trainer.components and what those may.
"""
