"""Functions compiled by numba, kept on the disk where there is a place for it, and compiled anew where that is damaged.

Compiled functions stand in the one file that they are made of: numba notices changes of that file, not of others.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

KEPT: list[Any] = []
"""the functions whose machine code is kept on the disk"""


def compiled(function: Function) -> Function:
    """Machine code for this processor, kept on the disk where there is a place for it."""
    try:
        made = njit(cache=True, nogil=True, error_model="numpy")(function)
        KEPT.append(made)
    except RuntimeError:  # no folder that may be written to
        made = njit(nogil=True, error_model="numpy")(function)
    return cast("Function", made)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a compiled function. Where what is kept of it is torn or foreign and cannot be loaded, it is made anew."""
    known: Any = function
    try:
        return function(*arguments)
    except Exception:
        if known.signatures:  # it is loaded, so it is something else
            raise
        for each in KEPT:
            each._cache.flush()  # noqa: SLF001  (numba offers no other way)
        return function(*arguments)
