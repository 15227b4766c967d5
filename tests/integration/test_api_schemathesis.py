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

from tests.fixtures.left_behind import leave_behind

CONFIG = Path(__file__).parents[1] / "schemathesis.toml"
SECONDS = int(os.environ.get("SCHEMATHESIS_SECONDS", "0"))
SHORT_SECONDS = 45
SEED = os.environ.get("SCHEMATHESIS_SEED", "7")


KEEP = """
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN NEW.revoked_at = NULL; NEW.expires_at = NULL; RETURN NEW; END';
CREATE TRIGGER keep BEFORE UPDATE ON api_keys FOR EACH ROW WHEN (OLD.name = 'fuzz') EXECUTE FUNCTION keep();
"""
"""It finds its own key in the list of keys and revokes it: from then on it would only be told 401."""


@pytest.mark.timeout(240 + SECONDS)
def test_the_running_api_keeps_its_description(api, live_url, tmp_path):
    key = api.services.keys.create(
        name="fuzz", scopes=("merges:read", "merges:write", "admin"), reads=[api.user], writes=[api.user],
        unlimited=True,
    )
    with api.services.database.engine.begin() as connection:
        connection.exec_driver_sql(KEEP)
    pair = {name: part for name, part in api.recipe().items() if name != "target"}
    for made in (api.submit(key=key), api.call("POST", "/scores", json=pair, key=key)):
        assert made.status_code == 202
        leave_behind(api, made.json()["id"])
    object.__setattr__(api.services.settings, "refusals_per_minute", 10**9)  # its calls without a key are many
    short = ["--max-examples", "4", "--phases", "examples,coverage,fuzzing"]
    bounds = ["--max-time", str(SECONDS or SHORT_SECONDS), *([] if SECONDS else short)]
    run = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{live_url}/openapi.json",
         "--checks", "all", "--seed", SEED, "--header", f"Authorization: Bearer {key}", "--continue-on-failure",
         "--no-color", "--no-shrink", "--request-timeout", "40", *bounds],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(run.stdout[-3_000:])  # what was asked, how often
    assert run.returncode == 0, run.stdout[-100_000:] + run.stderr[-2_000:]
    assert int(re.findall(r"\b(\d+) passed", run.stdout)[-1]) >= 100
    if SECONDS:  # on a busy machine the short run ends before some operation was asked with the key
        assert "401 Unauthorized (" not in run.stdout  # the list of operations that told it nothing else
    assert not re.search(r"\b[1-9]\d* (failed|failures?|errors?)\b", run.stdout)
