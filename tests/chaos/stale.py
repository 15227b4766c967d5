"""Workers that are paused for longer than their lease, and wake up when another has taken their job."""

import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.chaos.audit import Audit
from tests.chaos.processes import below, send
from tests.chaos.verdict import judge
from tests.chaos.workload import Models, Wish, push_models, tidy
from tests.fixtures.hub import LocalHub
from tests.fixtures.service import Service, start_service, stop_service

SETTINGS = {
    "SPEAR_LEASE_SECONDS": "2.5", "SPEAR_SWEEP_SECONDS": "0.3", "SPEAR_RESEND_SECONDS": "1",
    "SPEAR_MAX_ATTEMPTS": "50", "SPEAR_PUBLISH_SECONDS": "12",
}  # fmt: skip
SIDE_BY_SIDE = 2


def run(root: Path, *, rounds: int, seed: int) -> dict[str, Any]:
    """So many rounds; what was wrong."""
    hub = LocalHub(root / "hub")
    hub.start()
    (root / "service").mkdir()
    service = start_service(hub, root / "service", workers=2 * SIDE_BY_SIDE, **SETTINGS)
    try:
        began, bench = time.monotonic(), _Bench(service, push_models(service, root), seed=seed)
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            wishes = [wish for wish, _ in pool.map(bench.round, range(rounds))]
        time.sleep(2 * float(SETTINGS["SPEAR_LEASE_SECONDS"]))  # who woke up last may still try something
        tidy(service, bench.models)
        wrong = {name: found for name, found in judge(service, bench.audit, wishes).items() if found}
        return {
            "held": not wrong, "wrong": wrong, "rounds": rounds, "paused while": bench.kinds,
            "taken over": bench.taken, "cancelled": sum(wish.cancelled for wish in wishes),
            "stale writes refused": bench.audit.refused_writes(), "stale writes accepted": bench.audit.stale_writes(),
            "seconds": round(time.monotonic() - began, 1),
        }
    finally:
        stop_service(service)
        hub.stop()


class _Bench:
    """Rounds on one service."""

    def __init__(self, service: Service, models: Models, *, seed: int) -> None:
        self._service, self.models, self._seed = service, models, seed
        self.audit = Audit(service.home)
        self.kinds: dict[str, int] = {}
        self.taken = 0
        self._lock = threading.Lock()

    def round(self, number: int) -> tuple[Wish, str]:
        """Pause the job's worker at a random moment; wake it at another, when the lease is lost for sure."""
        chance = random.Random(self._seed * 1000 + number)
        kind = ("working", "publishing", "cancelled")[number % 3]
        with self._service.client() as client:
            method = chance.choice([{"name": "linear"}, {"name": "spear"}])
            recipe = self._service.recipe(self.models.base, self.models.experts[0], f"s{number}", method=method)
            wish = Wish(client.submit(recipe)["id"], "succeeded")
            frozen = self._freeze(wish.job_id, kind, chance)
            try:
                if kind == "cancelled" and frozen:
                    client.cancel(wish.job_id)
                    wish.cancelled, wish.ends = True, "cancelled"
                if frozen:
                    self._outlast(wish.job_id)
                # not longer: on one machine the successor waits for the sleeper's hold on the job's directory
                time.sleep(chance.uniform(0, 3))
            finally:
                send(frozen, signal.SIGCONT)
            self._service.wait(wish.job_id)
        with self._lock:
            self.kinds[kind if frozen else "too late"] = self.kinds.get(kind if frozen else "too late", 0) + 1
        return wish, kind

    def _freeze(self, job: str, kind: str, chance: random.Random) -> list[int]:
        """Stop the worker that holds the job, with all its children; nothing where it was quicker."""
        recorded = kind == "publishing"
        if not self._until(job, lambda row: row[0] == "running" and (not recorded or row[3])):
            return []
        if not recorded:
            time.sleep(chance.uniform(0, 3))
        status, owner, _, publishing = self._row(job)
        if status != "running" or (kind == "cancelled" and publishing):
            return []
        pid = int(owner.split(":")[1])
        main = next((worker for worker in self._service.worker_pids() if pid in below(worker)), None)
        frozen = [main, *below(main)] if main else []
        send(frozen, signal.SIGSTOP)
        if self._row(job)[1] != owner or (kind == "cancelled" and self._row(job)[3]):
            send(frozen, signal.SIGCONT)
            return []
        return frozen

    def _outlast(self, job: str) -> None:
        """Wait until the lease is not the sleeper's any more."""
        token = self._row(job)[2]
        self._until(job, lambda row: row[2] != token and row[0] == "running")
        with self._lock:
            self.taken += 1

    def _until(self, job: str, condition: Callable[[tuple[Any, ...]], bool]) -> bool:
        """False if the job ended before the condition held."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            row = self._row(job)
            if condition(row):
                return True
            if row[0] in {"succeeded", "failed", "cancelled"}:
                return False
            time.sleep(0.02)
        raise AssertionError(f"job {job} does not come so far: {row}")

    def _row(self, job: str) -> tuple[Any, ...]:
        query = "SELECT status, lease_owner, lease_token, publishing IS NOT NULL FROM jobs WHERE id = %s"
        return self.audit.ask(query, job)[0]
