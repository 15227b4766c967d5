"""Cancellation in every stage: prompt, and nothing is left on the disk or at the Hub."""

import random
import time
from pathlib import Path
from typing import Any

from app.client import ApiError
from tests.chaos.audit import Audit
from tests.chaos.verdict import summary
from tests.fixtures.hub import LocalHub
from tests.fixtures.models import make_checkpoint
from tests.fixtures.service import Service, start_service, stop_service

STAGES = ("queued", "resolving", "downloading", "scoring", "selecting", "merging", "verifying", "publishing")
LIMIT_SECONDS = 5.0
SETTINGS = {"SPEAR_LEASE_SECONDS": "10", "SPEAR_CACHE_MAX_BYTES": "0"}  # no cache: every job downloads


def run(root: Path, *, each: int, seed: int) -> dict[str, Any]:
    """So many cancellations in each stage."""
    hub = LocalHub(root / "hub")
    hub.start()
    (root / "service").mkdir()
    service = start_service(hub, root / "service", workers=1, **SETTINGS)
    try:
        began, bench = time.monotonic(), _Bench(service, root, seed=seed)
        times = {stage: [bench.cancelled_in(stage) for _ in range(each)] for stage in STAGES}
        wrong = bench.left()
        whole = summary([seconds for found in times.values() for seconds in found])
        if whole["p95"] > LIMIT_SECONDS:
            wrong.append(f"p95 of {whole['p95']} s")
        return {
            "held": not wrong, "wrong": wrong, "all": whole,
            "by stage": {stage: summary(found) for stage, found in times.items()}, "too quick to catch": bench.missed,
            "seconds": round(time.monotonic() - began, 1),
        }
    finally:
        stop_service(service)
        hub.stop()


class _Bench:
    """Jobs that are held in a stage where it would be over too soon."""

    def __init__(self, service: Service, root: Path, *, seed: int) -> None:
        self._service, self._random, self._audit = service, random.Random(seed), Audit(service.home)
        base = make_checkpoint(root / "base", seed=1, hidden=128, layers=6, max_shard_size=300_000)
        adapted = make_checkpoint(root / "adapted", seed=2, like=base, max_shard_size=300_000)
        pair = service.push("base", base), service.push("adapted", adapted)
        self._recipes = {
            new: service.recipe(*pair, name, method={"name": "spear", "policy": "aggressive"})
            for new, name in ((False, "old"), (True, "new"))
        }
        service.run(self._recipes[False], timeout=120)
        self.missed = 0
        self._jobs: list[str] = []

    def cancelled_in(self, stage: str) -> float:
        """Seconds from the cancellation of a job in this stage to its end."""
        for _ in range(30):
            self._audit.ask("WITH gone AS (DELETE FROM spectra RETURNING 1) SELECT count(*) FROM gone")
            took = self._try(stage)
            if took is not None:
                return took
            self.missed += 1
        raise AssertionError(f"no job could be cancelled in {stage}")

    def left(self) -> list[str]:
        """What cancelled jobs have left behind."""
        found = [f"workspace {path.name}" for path in (self._service.home / "jobs").glob("*")]
        api = self._service.hub.api(self._service.token)
        repo = self._recipes[False]["target"]["repo"]
        said = "".join(commit.message for commit in api.list_repo_commits(repo))
        found += [f"a commit of {job}" for job in self._jobs if job in said]  # those that were too far have theirs
        found += [f"branch {ref.name}" for ref in api.list_repo_refs(repo).branches if ref.name != "main"]
        new = self._recipes[True]["target"]["repo"]
        if api.repo_exists(new) and (files := set(api.list_repo_files(new)) - {".gitattributes"}):
            found.append(f"files in a repository that only cancelled jobs have made: {sorted(files)}")
        return found + [f"upload {path.name}" for path in (self._service.hub.root / "uploads").glob("*")]

    def _try(self, stage: str) -> float | None:
        self._hold(stage)
        with self._service.client() as client:
            job = client.submit(self._recipes[stage != "publishing"])["id"]
            try:
                if not self._reached(job, stage):
                    return None
                if stage in {"downloading", "publishing"}:
                    time.sleep(self._random.uniform(0, 0.5))
                began = time.monotonic()
                client.cancel(job)
            except ApiError as error:
                if error.code != "too_late":
                    raise
                return None
            finally:
                self._service.hub.clear_faults()
            ended = self._service.wait(job)
        assert ended["status"] == "cancelled", ended
        self._jobs.append(job)
        return time.monotonic() - began

    def _hold(self, stage: str) -> None:
        hub = self._service.hub
        if stage == "resolving":
            hub.fault("slow", path="/models/.*/revision/", delay=1, times=None, after=3)
        elif stage == "downloading":
            hub.fault("slow", path=r"/resolve/.*safetensors$", ranged=False, delay=20, times=None)
        elif stage == "publishing":
            hub.fault("slow", path="/(preupload|_lfs/upload)", delay=20, times=None, share=0.5, seed=len(self._jobs))

    def _reached(self, job: str, stage: str) -> bool:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            status, now, publishing = self._audit.ask(
                "SELECT status, stage, publishing IS NOT NULL FROM jobs WHERE id = %s", job
            )[0]
            if (stage == "queued" and status == "queued") or now == stage:
                return not publishing
            if status not in {"queued", "running"}:
                return False
            time.sleep(0.005)
        raise AssertionError(f"job {job} does not reach {stage}")
