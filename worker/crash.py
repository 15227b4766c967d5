"""Named points at which a worker dies on demand, so that tests can show what recovery is worth.

`SPEAR_CRASH_AT=publishing.recorded@1:org/a,scoring.begun@2:org/b` kills the whole worker, as `kill -9` would, when the
first attempt at the job with target org/a has recorded its publish, and when the second at org/b has begun to score.
"""

import os
import signal


class CrashPoints:
    """The points of one attempt; none, unless the setting names some."""

    def __init__(self, setting: str, *, attempt: int, target: str | None) -> None:
        wanted = (point.partition("@") for point in setting.split(",") if point)
        self._names = frozenset(name for name, _, when in wanted if when == f"{attempt}:{target}")

    def reach(self, name: str) -> None:
        """Die here if this point is named."""
        if name in self._names:
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
