"""mergekit's recipes as they are: a YAML text becomes a recipe of ours, or is refused with its line and key."""

from app.recipes.mergekit.form import AnyForm, MergekitForm, written
from app.recipes.mergekit.places import Translation
from app.recipes.mergekit.translation import translate

__all__ = ["AnyForm", "MergekitForm", "Translation", "translate", "written"]
