"""`make chaos`: many small jobs on a real stack while everything is killed at random. Seeded and bounded.

Prints the seed, what was done to the service, and a verdict; the exit status is 0 only if every job ended as it must,
with exactly one commit. The same seed makes the same choices, though not the same interleavings.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import redis

from tests.fixtures.hub import LocalHub
from tests.fixtures.models import make_checkpoint
from tests.fixtures.service import Service, start_service, stop_service

FAULTS = ("kill_worker", "kill_child", "pause_worker", "kill_api", "flush_redis", "restart_postgres")
WEIGHTS = (10, 6, 3, 2, 1, 1)
ENDED = {"succeeded", "failed", "cancelled"}


class Monkey:
    """Hurts the service at random, and counts what it did."""

    def __init__(self, service: Service, *, seed: int) -> None:
        self._service = service
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()

    def strike(self) -> None:
        name = self._random.choices(FAULTS, WEIGHTS)[0]
        if getattr(self, f"_{name}")():
            self.done[name] += 1

    def _kill_worker(self) -> bool:
        return self._signal(self._service.worker_pids(), signal.SIGKILL)

    def _kill_child(self) -> bool:
        children = [child for pid in self._service.worker_pids() for child in _below(pid)]
        return self._signal(children, signal.SIGKILL)

    def _pause_worker(self) -> bool:
        """A worker with all its children sleeps for longer than its lease, and wakes up."""
        pids = self._service.worker_pids()
        if not pids:
            return False
        chosen = self._random.choice(pids)
        frozen = [chosen, *_below(chosen)]
        _send(frozen, signal.SIGSTOP)
        time.sleep(4.5)
        _send(frozen, signal.SIGCONT)
        return True

    def _kill_api(self) -> bool:
        return self._signal(self._service.children(b"app.cli\0api"), signal.SIGKILL)

    def _restart_postgres(self) -> bool:
        return self._signal(self._service.children(b"/bin/postgres"), signal.SIGQUIT)

    def _flush_redis(self) -> bool:
        sockets = [part for part in _arguments(self._service.children(b"valkey-server")) if part.endswith(".sock")]
        if not sockets:
            return False
        with redis.Redis(unix_socket_path=sockets[0].partition(":")[2] or sockets[0]) as broker:
            broker.flushall()
        return True

    def _signal(self, pids: list[int], number: signal.Signals) -> bool:
        return bool(pids) and _send([self._random.choice(pids)], number) == 1


def run(*, jobs: int, seed: int, workers: int, seconds: int, pause: float) -> bool:
    """Whether everything held."""
    with tempfile.TemporaryDirectory(prefix="spear-chaos-") as folder:
        root = Path(folder)
        hub = LocalHub(root / "hub")
        hub.start()
        (root / "service").mkdir()
        service = start_service(hub, root / "service", workers=workers, SPEAR_MAX_ATTEMPTS="1000")
        try:
            return _run(service, root, jobs=jobs, seed=seed, seconds=seconds, pause=pause)
        finally:
            stop_service(service)
            hub.stop()


def _run(service: Service, root: Path, *, jobs: int, seed: int, seconds: int, pause: float) -> bool:
    base = make_checkpoint(root / "base", seed=1)
    pair = service.push("base", base), service.push("adapted", make_checkpoint(root / "adapted", seed=2, like=base))
    for action, options in (("apply_then_drop", {}), ("status", {"status": 503}), ("status_after", {"status": 500})):
        service.hub.fault(action, path="/commit/", method="POST", times=max(1, jobs // 15), after=1, **options)
    with service.client() as client:
        ids = [client.submit(service.recipe(*pair, f"t{number}"))["id"] for number in range(jobs)]
    monkey = Monkey(service, seed=seed)
    began = time.monotonic()
    while time.monotonic() - began < seconds and _unended(service, ids):
        monkey.strike()
        time.sleep(pause)
    ended = [service.wait(job_id, timeout=300) for job_id in ids]
    faults = sum(rule["hits"] for rule in service.hub.faults())
    return _verdict(service, ended, seed=seed, strikes=monkey.done, hub_faults=faults, began=began)


def _verdict(
    service: Service, ended: list[dict], *, seed: int, strikes: Counter[str], hub_faults: int, began: float
) -> bool:
    states = Counter(job["status"] for job in ended)
    commits = {job["id"]: service.commits_of(job) for job in ended}
    twice = sum(len(found) > 1 for found in commits.values())
    right = sum(job["status"] == "succeeded" and commits[job["id"]] == [job["result"]["commit"]] for job in ended)
    held = right == len(ended) and twice == 0
    print(json.dumps({
        "seed": seed, "jobs": len(ended), "states": states, "strikes": strikes, "hub_faults": hub_faults,
        "attempts": sum(job["attempt"] for job in ended), "published_twice": twice, "right": right,
        "seconds": round(time.monotonic() - began, 1),
    }))  # fmt: skip
    print(f"verdict: {'held' if held else 'BROKEN'}")
    return held


def _unended(service: Service, ids: list[str]) -> bool:
    try:
        with service.client() as client:
            return sum(1 for job in client.merges(limit=len(ids)) if job["status"] in ENDED) < len(ids)
    except Exception as error:  # noqa: BLE001  (the API may be the one that was just killed)
        print(f"not now: {type(error).__name__}", file=sys.stderr)
        return True


def _below(pid: int) -> list[int]:
    try:
        found = [int(child) for task in Path(f"/proc/{pid}/task").iterdir()
                 for child in (task / "children").read_text().split()]  # fmt: skip
    except FileNotFoundError:
        return []
    return found + [grandchild for child in found for grandchild in _below(child)]


def _arguments(pids: list[int]) -> list[str]:
    return [part for pid in pids for part in Path(f"/proc/{pid}/cmdline").read_text().replace(" ", "\0").split("\0")]


def _send(pids: list[int], number: signal.Signals) -> int:
    sent = 0
    for pid in pids:
        try:
            os.kill(pid, number)
            sent += 1
        except ProcessLookupError:
            continue
    return sent


def main() -> None:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--seconds", type=int, default=900, help="no more strikes after so long")
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between strikes")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    sys.exit(0 if run(**vars(options)) else 1)


if __name__ == "__main__":
    main()
