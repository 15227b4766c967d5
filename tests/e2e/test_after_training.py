"""The hook for training pipelines, as a pipeline runs it."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "after_training.py"


def run(service, *arguments: str) -> subprocess.CompletedProcess[str]:
    own = {"SPEAR_API_URL": service.url, "SPEAR_API_KEY": service.key}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False, timeout=120)


def test_the_model_is_repaired_once_for_a_run(service, pair):
    base, adapted = pair
    target = f"{service.user}/after-training"
    first = run(service, base, adapted, target, "--run", "4711")
    assert first.returncode == 0, first.stderr
    again = run(service, base, adapted, target, "--run", "4711")
    assert again.returncode == 0
    assert first.stdout == again.stdout
    assert f"/{target}/" in first.stdout
    with service.client() as client:
        [job] = client.merges(label=["run:4711"])
    assert len(service.commits_of(job)) == 1


def test_a_refusal_fails_the_pipeline_and_says_why(service, pair):
    base, _ = pair
    found = run(service, base, f"{service.user}/nothing", f"{service.user}/never", "--run", "4712")
    assert found.returncode == 1
    assert found.stderr.startswith("repo_not_found:")
