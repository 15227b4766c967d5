"""What this process has counted since it began, for `/metrics`. Plain numbers: nothing here needs a metrics library."""

import threading
from collections import defaultdict
from collections.abc import Iterator

COUNTED = {
    "spear_hub_calls": "Calls to the Hub by outcome: ok, or the error's code",
    "spear_bytes": "Bytes by stage: input files that came to hand, output files that the Hub stores",
    "spear_spectra": "Matrices scored, by where their spectrum came from: computed or cached",
}
"""every counter and what it counts"""

Labels = tuple[tuple[str, str], ...]


class Counters:
    """Numbers that only grow, by name and labels; safe to use from several threads."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, Labels], float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Count; raises `KeyError` for a name that stands not in `COUNTED`."""
        assert COUNTED[name]
        with self._lock:
            self._values[name, tuple(sorted(labels.items()))] += amount

    def read(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Every number with its name and labels, in order."""
        with self._lock:
            found = sorted(self._values.items())
        for (name, labels), value in found:
            yield name, dict(labels), value


counters = Counters()
"""of this process"""
