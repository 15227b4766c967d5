"""The language of merges. Pure pydantic: no I/O, no torch."""

from app.recipes.measuring import Measuring, parse_measuring
from app.recipes.parts import ModelRef
from app.recipes.recipe import METHODS, Expert, Output, Recipe, Target, parse_recipe, pointer, reason
from app.recipes.scoring import Scoring, parse_scoring
from app.recipes.study import Study, parse_study

AnyRecipe = Recipe | Scoring | Measuring | Study
"""what a job is asked for by"""

__all__ = [
    "METHODS", "AnyRecipe", "Expert", "Measuring", "ModelRef", "Output", "Recipe", "Scoring", "Study", "Target",
    "parse_measuring", "parse_recipe", "parse_scoring", "parse_study", "pointer", "reason",
]  # fmt: skip
