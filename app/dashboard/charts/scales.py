"""From values to places, and the round values that are written on an axis."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps values from `low` to `high` onto places from `start` to `stop`, by their logarithm if asked."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value; values outside of the range stand at its end."""
        low, high, value = (math.log(max(x, 1e-300)) if self.log else x for x in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + (self.stop - self.start) * min(1.0, max(0.0, share))

    def ticks(self, *, most: int = 5) -> list[float]:
        """At most about `most` round values within the range."""
        return _powers(self.low, self.high, most=most) if self.log else _steps(self.low, self.high, most=most)


def figure(value: float | None) -> str:
    """Three digits, as people read them; a dash for none."""
    return "-" if value is None else f"{value:.3g}"


def percent(value: float | None, *, digits: int = 3) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{100 * value:.{digits}g} %"


def _steps(low: float, high: float, *, most: int) -> list[float]:
    if high <= low:
        return [low]
    rough = (high - low) / most
    size: float = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float, *, most: int) -> list[float]:
    if not 0 < low < high:
        return [high]
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**e for e in exponents for m in factors if low <= m * 10.0**e <= high]
        if 2 <= len(found) <= most:
            return found
    tens = [10.0**e for e in exponents if low <= 10.0**e <= high]
    return tens[:: math.ceil(len(tens) / most)] if len(tens) > 1 else [low, high]
