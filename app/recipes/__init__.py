"""The language of merges. Pure pydantic: no I/O, no torch."""

from app.recipes.recipe import METHODS, Expert, ModelRef, Output, Recipe, Target, parse_recipe, pointer

__all__ = ["METHODS", "Expert", "ModelRef", "Output", "Recipe", "Target", "parse_recipe", "pointer"]
