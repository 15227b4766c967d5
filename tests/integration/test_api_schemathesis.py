"""schemathesis with all its checks against the running API, on a real database, broker and Hub.

`make test ARGS="tests/integration/test_api_schemathesis.py"` runs a bounded, seeded part; SCHEMATHESIS_SECONDS and
SCHEMATHESIS_SEED ask for more, or for another.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[1] / "schemathesis.toml"
SECONDS = int(os.environ.get("SCHEMATHESIS_SECONDS", "0"))
SEED = os.environ.get("SCHEMATHESIS_SEED", "7")


@pytest.mark.timeout(240 + SECONDS)
def test_the_running_api_keeps_its_description(api, live_url, tmp_path):
    key = api.services.keys.create(
        name="fuzz", scopes=("merges:read", "merges:write", "admin"), reads=[api.user], writes=[api.user],
        unlimited=True,
    )
    object.__setattr__(api.services.settings, "refusals_per_minute", 10**9)  # its calls without a key are many
    short = ["--max-examples", "4", "--phases", "examples,coverage,fuzzing"]
    bounds = ["--max-time", str(SECONDS)] if SECONDS else short
    run = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{live_url}/openapi.json",
         "--checks", "all", "--seed", SEED, "--header", f"Authorization: Bearer {key}", "--continue-on-failure",
         "--no-color", "--no-shrink", *bounds],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-100_000:] + run.stderr[-2_000:]
    assert re.search(r"\b0 failures|No issues found", run.stdout)
