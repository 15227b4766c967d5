"""Train the experts, start the service, send one study, keep what it finds: `python -m benchmarks.study`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

from huggingface_hub import HfApi

from app.client import Client
from benchmarks.evidence.plan import HOME as EVIDENCE
from benchmarks.study import experts, tasks
from benchmarks.study.check import differences

HOME = EVIDENCE.with_name("study")
KINDS = ("general", *experts.DOMAINS)
METHODS: list[dict[str, Any]] = [
    {"method": {"name": "task_arithmetic"}, "grid": {"lambda": [0.2, 0.4, 0.6, 1.0]}},
    {"method": {"name": "ties"}, "grid": {"lambda": [1.0], "density": [0.3, 0.7]}},
    {"method": {"name": "dare_ties"}, "grid": {"lambda": [1.0], "density": [0.5], "seed": [0, 1]}},
]


def main() -> None:
    models = experts.models()
    HOME.mkdir(parents=True, exist_ok=True)
    with running() as ready, Client(ready["api"], ready["api_key"]) as client:
        body = push(models, ready)
        began = time.monotonic()
        job = client.study(body)
        print(f"job {job['id']}", flush=True)
        ended = client.wait(job["id"], progress=lambda one: show(one, began))
        if ended["status"] != "succeeded":
            raise SystemExit(f"the study did not succeed: {ended['error']}")
        spent = time.monotonic() - began
        report = client.report(job["id"])
        sheets = {
            task["task"]: client._json(_sheet(job["id"], task["task"]))  # noqa: SLF001
            for task in report["tasks"] if task["on"] == "held_out"
        }  # fmt: skip
        (HOME / "report.json").write_text(json.dumps(report))
        (HOME / "sheets.json").write_text(json.dumps(sheets))
        for form in ("csv", "parquet", "html"):
            (HOME / f"study.{form}").write_bytes(client.export(job["id"], format=form))
    print(f"\n{len(report['cells'])} merges in {spent:.0f} s; {report['verdict']}")
    differing = differences(report, sheets)
    print("\n".join(differing) or "an independent script finds the same figures")
    print(f"kept in {HOME}")
    sys.exit(1 if differing else 0)


def push(models: dict[str, Path], ready: dict[str, str]) -> dict[str, Any]:
    """The models and the task files on the local Hub; the study's body."""
    api = HfApi(endpoint=ready["hub"], token=ready["hub_token"])
    user = api.whoami()["name"]
    for name, folder in models.items():
        api.create_repo(f"{user}/{name}", private=True, exist_ok=True)
        api.upload_folder(repo_id=f"{user}/{name}", folder_path=folder)
    with tempfile.TemporaryDirectory() as folder:
        tasks.write(Path(folder), KINDS)
        api.create_repo(f"{user}/sets", repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(repo_id=f"{user}/sets", repo_type="dataset", folder_path=folder)
    return body(user)


def body(user: str) -> dict[str, Any]:
    repo = f"{user}/sets"

    def each(part: str, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
        return [task for kind in kinds for task in tasks.named(kind, part, repo=repo)]

    return {
        "base": {"repo": f"{user}/base"},
        "experts": [{"repo": f"{user}/{name}", "domain": name} for name in experts.DOMAINS],
        "methods": METHODS,
        "evaluation": {
            "general": each("held_out", ("general",)), "domain": each("held_out", experts.DOMAINS),
            "calibration": {
                "general": each("calibration", ("general",)), "domain": each("calibration", experts.DOMAINS),
            },
        },
    }  # fmt: skip


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """The service on this machine with its own servers and a local Hub; stopped at the end, whatever happens."""
    command = [Path(sys.executable).with_name("spear"), "up", "--local-hub", "--json", "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPEAR_")}
    for part in ("postgres", "hub", "jobs"):  # what an interrupted run has left would go on first
        shutil.rmtree(HOME / "service" / part, ignore_errors=True)
    with (HOME / "service.log").open("w") as log:
        service = subprocess.Popen(
            [*command, "--data-dir", HOME / "service"], stdout=subprocess.PIPE, stderr=log, env=environment, text=True
        )
    try:
        assert service.stdout is not None
        line = service.stdout.readline()
        if not line:
            raise SystemExit(f"the service did not start; its log is {HOME / 'service.log'}")
        yield json.loads(line)
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)


def show(job: Any, began: float) -> None:
    progress = job["progress"] or {"done": 0, "total": 0, "unit": ""}
    told = f"{job['status']} {job['stage'] or ''} {progress['done']:.0f}/{progress['total']:.0f} {progress['unit']}"
    print(f"{time.monotonic() - began:6.0f} s  {told}", flush=True)


def _sheet(job_id: str, task: str) -> Any:
    from app.client.calls import Call, job_path  # noqa: PLC0415

    return Call(path=f"{job_path(job_id)}/sheets", params={"task": task})


if __name__ == "__main__":
    main()
