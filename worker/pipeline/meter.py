"""Processor time by stage, of this process and of those that it started."""

import os
from typing import Any

from worker.pipeline.task import Reporter


class Meter(Reporter):
    """Hands everything on to the reporter it is given, and notes the processor time at each stage's beginning.

    The time of started processes counts when they have been waited for, which is by the end of their stage.
    """

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(reporter.stream)
        self._stage = ""
        self._since = 0.0  # the process began with nothing spent
        self._spent: dict[str, float] = {}

    def stage(self, name: str, *, total: float, unit: str) -> None:
        self._close()
        self._stage = name
        super().stage(name, total=total, unit=unit)

    def spent(self) -> dict[str, float]:
        """Core-seconds by stage so far; what came before the first stage, imports too, is `starting`."""
        self._close()
        return {name: round(seconds, 3) for name, seconds in self._spent.items()}

    def facts(self) -> dict[str, Any]:
        """For the report's costs."""
        return {"core_seconds": self.spent(), "cpu_seconds": round(_seconds(), 2)}

    def _close(self) -> None:
        now = _seconds()
        name = self._stage or "starting"
        self._spent[name] = self._spent.get(name, 0.0) + now - self._since
        self._since = now


def _seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
