"""What stands in a table's cell: means over pairs with their intervals, and how figures are written."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DRAWS = 4000
AUTO = "**`auto`**"
Result = Mapping[str, Any]
"""of one pair, as `judge` tells it"""


def family_cell(members: Sequence[Result], family: str, least: str) -> str:
    """The mean over the pairs, and how many of the selections came to that gain where not all did."""
    if family == AUTO:
        return points(mean([one["auto"][least] for one in members]))
    found = [at[least] for one in members for name, at in one["asked"].items() if plain(name) == family]
    reached = [one for one in found if one is not None]
    if not reached:
        return "not reached"
    if family == "uniform":
        return f"undoes {100 * float(np.mean([one['value'] for one in reached])):.1f} %"
    return points(mean(reached)) + (f" ({len(reached)} of {len(found)})" if len(reached) < len(found) else "")


def plain(name: str) -> str:
    """`random 1` to `random 3` are one method."""
    return name.rstrip(" 123") if name.startswith("random") else name


def mean(members: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean advantage; its interval over pairs drawn anew, and of each pair its items."""
    random = np.random.default_rng(0)
    draws = np.stack([one["draws"] for one in members])
    pairs = random.integers(len(draws), size=(DRAWS, len(draws)))
    drawn = draws[pairs, random.integers(draws.shape[1], size=pairs.shape)].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = float(np.mean([one["advantage"]["value"] for one in members]))
    return {"value": value, "low": float(low), "high": float(high)}


def percent(told: Mapping[str, float]) -> str:
    return f"{100 * told['value']:.1f} % [{100 * told['low']:.1f}, {100 * told['high']:.1f}]"


def points(told: Mapping[str, float]) -> str:
    return f"{100 * told['value']:+.1f} [{100 * told['low']:+.1f}, {100 * told['high']:+.1f}]"
