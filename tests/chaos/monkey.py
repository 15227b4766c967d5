"""Hurts the service at random, in the measure in which its work proceeds, and counts what it did."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

import psycopg
import redis

from app.local.valkey import Valkey
from tests.chaos.audit import Audit
from tests.chaos.processes import below, send
from tests.fixtures.service import Service

FULL = {
    "kill_worker": 300, "kill_supervisor": 40, "kill_child": 60, "pause_worker": 25, "kill_api": 20,
    "flush_redis": 7, "restart_redis": 5, "restart_postgres": 6,
}  # fmt: skip
"""strikes in the full run, of 500 jobs"""


class Monkey:
    """Strikes until every kind has had its number, spread over the run by what share of the jobs has ended."""

    def __init__(self, service: Service, audit: Audit, *, wanted: Mapping[str, int], seed: int, lease: float) -> None:
        self._service = service
        self._audit = audit
        self._wanted = wanted
        self._random = random.Random(seed)
        self._lease = lease
        self._waking: list[threading.Timer] = []
        self._kinds: dict[str, Callable[[], bool]] = {
            "kill_worker": self._kill_worker, "kill_supervisor": self._kill_supervisor, "kill_child": self._kill_child,
            "pause_worker": self._pause_worker, "kill_api": self._kill_api, "flush_redis": self._flush_redis,
            "restart_redis": self._restart_redis, "restart_postgres": self._restart_postgres,
        }
        self.done: Counter[str] = Counter()
        self.orphans: list[tuple[str, float]] = []
        """jobs whose worker was killed under them, and when"""

    @property
    def satisfied(self) -> bool:
        return all(self.done[kind] >= count for kind, count in self._wanted.items())

    def strike(self, *, share: float) -> bool:
        """Strike once if the share of ended jobs asks for it; whether it did."""
        behind = {kind: share * count - self.done[kind] for kind, count in self._wanted.items()}
        due = [kind for kind, missing in behind.items() if missing > 0]
        if not due:
            return False
        kind = self._random.choices(due, [behind[kind] / self._wanted[kind] + behind[kind] for kind in due])[0]
        struck = self._kinds[kind]()
        self.done[kind] += struck
        return struck

    def wake_all(self) -> None:
        """Wait until nothing is paused any more."""
        for timer in self._waking:
            timer.join()

    def _kill_worker(self) -> bool:
        return self._kill_holding(self._service.worker_pids())

    def _kill_supervisor(self) -> bool:
        """The process in a worker that works on one job; the worker starts another."""
        return self._kill_holding([child for pid in self._service.worker_pids() for child in below(pid)[:1]])

    def _kill_child(self) -> bool:
        children = [grand for pid in self._service.worker_pids() for child in below(pid)[:1] for grand in below(child)]
        return bool(children) and send([self._random.choice(children)], signal.SIGKILL) == 1

    def _pause_worker(self) -> bool:
        """A worker with all its children sleeps for longer than its lease, and wakes up."""
        pids = self._service.worker_pids()
        if not pids:
            return False
        chosen = self._random.choice(pids)
        frozen = [chosen, *below(chosen)]
        send(frozen, signal.SIGSTOP)
        timer = threading.Timer(self._lease * self._random.uniform(1.1, 1.6), send, [frozen, signal.SIGCONT])
        timer.start()
        self._waking.append(timer)
        return True

    def _kill_api(self) -> bool:
        return send(self._service.children(b"app.cli\0api"), signal.SIGKILL) == 1

    def _restart_postgres(self) -> bool:
        """By turns a crash (SIGQUIT ends it without any tidying up) and a fast shutdown."""
        how = (signal.SIGQUIT, signal.SIGINT)[self.done["restart_postgres"] % 2]
        return send(self._service.children(b"/bin/postgres"), how) == 1

    def _restart_redis(self) -> bool:
        return send(self._service.children(b"valkey-server"), signal.SIGKILL) == 1

    def _flush_redis(self) -> bool:
        try:
            with redis.Redis.from_url(Valkey(self._service.home / "valkey").url) as broker:
                broker.flushall()
        except redis.RedisError:
            return False
        return True

    def _kill_holding(self, pids: list[int]) -> bool:
        """Kill one of these, and note the jobs that it held: those that still bear its name when it is dead."""
        if not pids:
            return False
        chosen = self._random.choice(pids)
        owners = [chosen, *below(chosen)]
        if send([chosen], signal.SIGKILL) != 1:
            return False
        self.orphans += [(job, time.time()) for job in self._held_by(owners)]
        return True

    def _held_by(self, pids: list[int]) -> list[str]:
        query = (
            "SELECT id FROM jobs WHERE status IN ('running', 'cancelling') AND lease_until > clock_timestamp()"
            " AND split_part(lease_owner, ':', 2)::int = ANY(%s)"
        )
        try:
            return [row[0] for row in self._audit.ask(query, pids)]
        except psycopg.OperationalError:
            return []  # Postgres is down as well: this one is not measured
