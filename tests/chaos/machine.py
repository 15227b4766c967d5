"""The state machine over the services on real Postgres, with ten times the examples of `make test`."""

import os
import subprocess
import sys
import time
from typing import Any

TEST = "tests/integration/test_jobs_machine.py"


def run(*, examples: int) -> dict[str, Any]:
    """Drawn anew each time; a failing example is printed by Hypothesis, smallest form first."""
    began = time.monotonic()
    argv = [sys.executable, "-m", "pytest", TEST, "--timeout=0"]
    done = subprocess.run(argv, env=os.environ | {"MACHINE_EXAMPLES": str(examples)}, check=False)
    return {"held": done.returncode == 0, "examples": examples, "seconds": round(time.monotonic() - began, 1)}
