"""The language of merges. Pure pydantic: no I/O, no torch."""

from app.recipes.parts import ModelRef
from app.recipes.recipe import METHODS, Expert, Output, Recipe, Target, parse_recipe, pointer
from app.recipes.scoring import Scoring, parse_scoring

__all__ = [
    "METHODS", "Expert", "ModelRef", "Output", "Recipe", "Scoring", "Target", "parse_recipe", "parse_scoring",
    "pointer",
]  # fmt: skip
