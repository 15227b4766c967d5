"""A worker dies at every named point, on the first and on the second attempt; every job ends right.

One service, one job per case, all submitted at once. Where the second attempt at a point cannot follow a death at the
same point (a commit that is made is found, not made again), the first attempt dies at the start.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.client import Client
from tests.chaos.audit import Audit
from tests.chaos.verdict import judge
from tests.chaos.workload import Wish, push_models, tidy
from tests.fixtures.hub import LocalHub
from tests.fixtures.service import Service, start_service, stop_service
from worker.crash import POINTS

SETTINGS = {
    "SPEAR_LEASE_SECONDS": "10", "SPEAR_SWEEP_SECONDS": "0.5", "SPEAR_RESEND_SECONDS": "3", "SPEAR_MAX_ATTEMPTS": "6",
    "SPEAR_PUBLISH_SECONDS": "7", "SPEAR_RESTART_SECONDS": "1",
}  # fmt: skip  # a dead publisher's deadline is over when its lease is: what it did is known at once
ATTEMPTS = int(SETTINGS["SPEAR_MAX_ATTEMPTS"])
START = "claim.written"
READS = 3
"""how often a question to the Hub is asked before it fails an attempt"""
_SCORED = ("scoring.", "selecting.", "spectra.")
_AFTER = ("settled", "workspace.removed")
"""reached when the row has ended: no attempt follows"""
_SPECIAL = {
    # how the earlier attempts have to go so that the point is reached
    "publishing.reconciled": "publishing.committed",
    "publishing.forgotten": "publishing.recorded",
}


@dataclass(frozen=True)
class Case:
    """The points at which attempts 1, 2, ... die, and how the job ends."""

    point: str
    deaths: tuple[str, ...]
    attempts: int
    ends: str = "succeeded"

    @property
    def target(self) -> str:
        return f"{self.point.replace('#', '-')}-{len(self.deaths)}"

    def setting(self, user: str) -> str:
        places = (f"{point}@{n}:{user}/{self.target}" for n, point in enumerate(self.deaths, start=1) if point)
        return ",".join(places)


def cases(points: Sequence[str] = POINTS) -> list[Case]:
    """Two for each point, the poison apart."""
    return [case for point in points for case in (_case(point, attempt=1), _case(point, attempt=2))]


def poison() -> Case:
    """A job that kills its worker at every attempt is given up."""
    return Case("merging.begun", ("merging.begun",) * ATTEMPTS, ATTEMPTS, ends="failed")


def _case(point: str, *, attempt: int) -> Case:
    ends = "cancelled" if point == "cancel.seen" else "succeeded"
    if before := _SPECIAL.get(point):
        earlier = (before,) if attempt == 1 else (START, before)
        return Case(point, (*earlier, point), len(earlier) + 2)
    late = point in _AFTER or point == "cancel.seen" or POINTS.index(point) >= POINTS.index("publishing.sent")
    first = START if late and point != "requeued" else point
    deaths = (point,) if attempt == 1 else (first, point)
    return Case(point, deaths, len(deaths) + (point not in _AFTER and ends != "cancelled"), ends=ends)


def run(root: Path, *, chosen: Sequence[Case], workers: int, seconds: float) -> dict[str, Any]:
    """Every case in one service; what was wrong, by case."""
    hub = LocalHub(root / "hub")
    hub.start()
    (root / "service").mkdir()
    account = hub.fresh_user()
    crash_at = ",".join(case.setting(account[0]) for case in chosen)
    service = start_service(
        hub, root / "service", workers=workers, account=account, SPEAR_CRASH_AT=crash_at, **SETTINGS
    )
    try:
        return _run(service, root, chosen=chosen, seconds=seconds)
    finally:
        stop_service(service)
        hub.stop()


def _run(service: Service, root: Path, *, chosen: Sequence[Case], seconds: float) -> dict[str, Any]:
    began, audit, models = time.monotonic(), Audit(service.home), push_models(service, root)
    wishes = {}
    with service.client() as client:
        for case in chosen:
            scored = case.point.startswith(_SCORED)
            method = {"name": "spear"} if scored else {"name": "linear"}
            recipe = service.recipe(models.base, models.experts[0], case.target, method=method)
            wishes[case] = Wish(client.submit(recipe)["id"], case.ends)
            _hinder(service, case)
        _cancel(client, audit, wishes, until=began + seconds)
        jobs = {
            case: service.wait(wish.job_id, timeout=max(1, began + seconds - time.monotonic()))
            for case, wish in wishes.items()
        }
    tidy(service, models)
    wrong = {name: found for name, found in judge(service, audit, list(wishes.values())).items() if found}
    for case, job in jobs.items():
        if job["attempt"] != case.attempts:
            wrong[f"{case.target} ({job['id']})"] = [f"attempt {job['attempt']}, not {case.attempts}: {job['error']}"]
    deaths, expected = _deaths(service), sum(len(case.deaths) for case in chosen)
    if deaths != expected:
        wrong["deaths"] = [f"{deaths}, not {expected}"]
    return {
        "held": not wrong, "wrong": wrong, "points": len({case.point for case in chosen}), "cases": len(chosen),
        "deaths": deaths, "stale writes refused": audit.refused_writes(),
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def _hinder(service: Service, case: Case) -> None:
    """What has to go wrong at the Hub for the point to be reached."""
    if case.point == "requeued":
        tries = READS * len(case.deaths)
        service.hub.fault("status", path=f"/{case.target}/refs$", status=503, times=tries)
    elif case.point == "cancel.seen":
        service.hub.fault("slow", path=f"/{case.target}/preupload/", method="POST", delay=30, times=None)


def _cancel(client: Client, audit: Audit, wishes: dict[Case, Wish], *, until: float) -> None:
    """Cancel those that are to be cancelled once the attempt that is to die has begun to publish."""
    waiting = {case: wish for case, wish in wishes.items() if case.ends == "cancelled"}
    while waiting and time.monotonic() < until:
        time.sleep(0.2)
        for case, wish in list(waiting.items()):
            place = audit.ask("SELECT attempt, stage FROM jobs WHERE id = %s", wish.job_id)
            if place == [(len(case.deaths), "publishing")]:
                client.cancel(wish.job_id)
                wish.cancelled = True
                del waiting[case]


def _deaths(service: Service) -> int:
    """How many workers `spear up` has seen die."""
    lines = (line for line in service.log.read_text().splitlines() if "part.died" in line)
    return sum(json.loads(line)["part"].startswith("spear-worker") for line in lines)
