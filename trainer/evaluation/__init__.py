"""Measures how well a model searches.

May import trainer.data, the modules distributed, device, config and errors, and gpq.
"""
