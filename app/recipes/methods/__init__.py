"""The parameters of every merge method: one class in one file each, found by looking into this folder."""

import importlib
import pkgutil

from app.recipes.methods.base import MethodParameters


def load_all() -> dict[str, type[MethodParameters]]:
    """Every parameter class by its method's name, in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted((cls.method_name(), cls) for cls in _below(MethodParameters) if "name" in cls.model_fields))


def _below(cls: type[MethodParameters]) -> set[type[MethodParameters]]:
    return {found for child in cls.__subclasses__() for found in {child} | _below(child)}
