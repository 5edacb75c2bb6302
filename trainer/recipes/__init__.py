"""Recipes by name: which losses, on which views, with which optimiser.

May import trainer.initial and what that may.
"""

from trainer.recipes.base import Recipe
from trainer.recipes.distilled import Distilled
from trainer.recipes.modern import Modern
from trainer.recipes.paper import Paper

RECIPES: dict[str, type[Recipe]] = {"paper": Paper, "modern": Modern, "distilled": Distilled}

__all__ = ["RECIPES", "Recipe"]
