import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def health(env: dict[str, str]) -> int:
    return subprocess.run([sys.executable, "docker/worker_health.py"], cwd=ROOT, env=env, check=False).returncode


@pytest.mark.slow
def test_a_worker_is_healthy_once_it_answers_over_the_broker(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    ours = {"SPEAR_REDIS_URL": redis_url, "SPEAR_DATABASE_URL": database_url, "SPEAR_DATA_DIR": str(tmp_path)}
    env = {**os.environ, **ours}
    assert health(env) == 1
    argv = [sys.executable, "-m", "worker", "--name", "spear-worker-health"]
    with subprocess.Popen(argv, cwd=ROOT, env=env) as worker:
        deadline = time.monotonic() + 60
        while (status := health(env)) != 0 and time.monotonic() < deadline:
            assert worker.poll() is None
        worker.terminate()
    assert status == 0
