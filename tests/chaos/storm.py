"""Many small jobs on a real stack while everything is killed at random. Seeded and bounded.

The same seed makes the same choices, though not the same interleavings.
"""

import time
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.audit import Audit
from tests.chaos.monkey import FULL, Monkey
from tests.chaos.trouble import TIMEOUT_SECONDS, struck, trouble
from tests.chaos.verdict import judge, recoveries, states, summary
from tests.chaos.workload import Models, Workload, push_models, tidy
from tests.fixtures.hub import LocalHub
from tests.fixtures.service import Service, start_service, stop_service

LEASE_SECONDS, SWEEP_SECONDS = 10.0, 2.5
"""a sixth of the defaults"""
RECOVERY_SECONDS = 90 / 6
"""in which an orphan is free again: 90 s at the defaults"""
SETTINGS = {
    "SPEAR_LEASE_SECONDS": str(LEASE_SECONDS), "SPEAR_SWEEP_SECONDS": str(SWEEP_SECONDS), "SPEAR_RESEND_SECONDS": "5",
    "SPEAR_MAX_ATTEMPTS": "1000", "SPEAR_PUBLISH_SECONDS": "40", "SPEAR_HUB_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
    "SPEAR_CACHE_MAX_BYTES": "150000",  # so small that jobs keep downloading
}  # fmt: skip
AHEAD = 4  # jobs that wait for each worker: an orphan's way back is not to be the length of the queue


def run(root: Path, *, jobs: int, workers: int, seed: int, seconds: float) -> dict[str, Any]:
    """What was done, and what was found; it `held` if nothing was wrong."""
    hub = LocalHub(root / "hub", page_size=1000)
    hub.start()
    (root / "service").mkdir()
    service = start_service(hub, root / "service", workers=workers, **SETTINGS)
    try:
        return _run(service, root, jobs=jobs, workers=workers, seed=seed, seconds=seconds)
    finally:
        stop_service(service)
        hub.stop()


def _run(service: Service, root: Path, *, jobs: int, workers: int, seed: int, seconds: float) -> dict[str, Any]:
    audit = Audit(service.home)
    wanted = {kind: max(1, round(count * jobs / 500)) for kind, count in FULL.items()}
    monkey = Monkey(service, audit, wanted=wanted, seed=seed, lease=LEASE_SECONDS)
    models = push_models(service, root)
    workload = Workload(
        service, models, jobs=jobs, cancelled=max(1, jobs // 20), poisoned=max(1, jobs // 50), seed=seed,
        targets=max(20, jobs // 8),
    )
    trouble(service.hub, seed=seed)
    began = time.monotonic()
    drive(service, audit, workload, monkey, ahead=AHEAD * workers, until=began + seconds)
    took = time.monotonic() - began
    hub_faults = struck(service.hub)
    service.hub.clear_faults()
    return _told(service, audit, workload, monkey, models=models) | {
        "strikes": monkey.done, "wanted": wanted, "hub": hub_faults, "seconds": round(took, 1),
    }


def drive(
    service: Service, audit: Audit, workload: Workload, monkey: Monkey, *, ahead: int, until: float
) -> None:
    """Submit, cancel and strike until every job has ended and every strike was made, or the time is over."""
    with service.client() as client:
        while time.monotonic() < until:
            try:
                counts = states(audit)
            except psycopg.OperationalError:
                time.sleep(0.3)
                continue
            ended = counts["succeeded"] + counts["failed"] + counts["cancelled"]
            if ended == workload.total:
                break
            if len(workload.wishes) < workload.total and len(workload.wishes) - ended < ahead:
                workload.submit(client)
            workload.cancel_due(client)
            # a little ahead of the jobs, so that the last strikes find work to disturb
            monkey.strike(share=min(1.0, (ended + 3) / (0.95 * workload.total)))
            time.sleep(0.3)
    monkey.wake_all()


def _told(
    service: Service, audit: Audit, workload: Workload, monkey: Monkey, *, models: Models
) -> dict[str, Any]:
    tidy(service, models)
    wrong = {name: found for name, found in judge(service, audit, workload.wishes).items() if found}
    times = recoveries(audit, monkey.orphans)
    late = sum(seconds > RECOVERY_SECONDS for seconds in times["freed"])
    if late:
        wrong["orphans freed too late"] = [f"{late} of {len(times['freed'])}"]
    if not monkey.satisfied:
        wrong["strikes missing"] = [f"{kind}: {monkey.done[kind]}" for kind in monkey.done]
    return {
        "held": not wrong, "wrong": wrong, "jobs": len(workload.wishes), "states": states(audit),
        "attempts": audit.ask("SELECT sum(attempt)::int, max(attempt) FROM jobs")[0],
        "orphans freed after": summary(times["freed"]), "orphans running after": summary(times["running"]),
        "recovery limit": RECOVERY_SECONDS, "stale writes refused": audit.refused_writes(),
    }
