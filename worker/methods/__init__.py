"""Merge methods: one file each, pure tensor functions. They are found by looking into this folder."""

import importlib
import pkgutil
from typing import Any

from worker.methods.base import Chunk, Method, NotFiniteError, Spec, UndefinedError, Workspace

__all__ = ["Chunk", "Method", "NotFiniteError", "Spec", "UndefinedError", "Workspace", "load_all"]


def load_all() -> dict[str, type[Method]]:
    """Every method by its name, in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {cls.name: cls for cls in sorted(_below(Method), key=lambda cls: cls.name) if cls.name}


def _below(cls: type[Any]) -> set[type[Method]]:
    return {found for child in cls.__subclasses__() for found in {child} | _below(child)}
