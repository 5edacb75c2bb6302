"""The parts a recipe is made of: the model, losses, views, optimiser, teacher.

May import trainer.data, the modules distributed, device, config and errors, and gpq.
"""
