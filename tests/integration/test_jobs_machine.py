"""The life of jobs as a state machine: whatever comes in whatever order, on a real Postgres, the promises hold.

200 examples by default; `MACHINE_EXAMPLES=2000` runs more, drawn anew each time. The Hub is a counter here: a commit is
made where the worker that recorded it still holds its lease and nothing stands on the parent, as the guard demands.
"""

import os
from itertools import count

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import text

from app.errors import SpearError
from app.jobs.changes import NewEvent
from app.jobs.leases import Lease, LeaseLostError, Leases
from app.jobs.states import HELD, TERMINAL, Status

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "200"))
STEPS = 30
ERROR = {"code": "hub_unavailable", "message": "gone", "stage": None, "retryable": True, "hint": "", "names": {}}
LOOK = text(
    """
    SELECT jobs.*, seen.count AS events, seen.first, seen.last,
      (to_jsonb(jobs) - '{version,event_seq,updated_at}'::text[])::text AS lasting
    FROM jobs, LATERAL (SELECT count(*), min(seq) AS first, max(seq) AS last FROM events WHERE job_id = id) AS seen
    """
)
ROW = text(
    """
    SELECT *, lease_until < clock_timestamp() AS over, to_jsonb(jobs)::text AS lasting FROM jobs WHERE id = :id
    """
)
names = count(1)
number = st.integers(0, 10**6)


class Machine(RuleBasedStateMachine):
    """Callers, workers that may be slow, dead or late, the sweep, and clocks that jump."""

    def __init__(self, jobs) -> None:
        super().__init__()
        self.jobs = jobs
        self.leases = Leases(jobs.database, seconds=60)
        self.held: list[Lease] = []
        """every lease that was ever given, the lost ones too"""
        self.commits: dict[str, int] = {}
        self.confirmed: set[str] = set()
        """jobs whose cancellation was told to the caller as done"""
        self.before: dict[str, object] = {}
        self.jobs.execute("TRUNCATE jobs, turns CASCADE")

    # --- callers

    @rule(repo=st.integers(0, 3), priority=st.integers(-1, 1), seconds=st.sampled_from([None, 1000.0]))
    def submit(self, repo, priority, seconds) -> None:
        try:
            job_id = self.jobs.submit(
                f"org/t{repo}", priority=priority, max_queue_seconds=seconds, max_runtime_seconds=seconds
            )
        except SpearError as error:
            assert error.code == "target_busy"  # noqa: PT017  (it may go either way)
        else:
            self.commits[job_id] = 0

    @precondition(lambda self: self.commits)
    @rule(pick=number)
    def cancel(self, pick) -> None:
        job_id = self.some(sorted(self.commits), pick)
        row = self.row(job_id)
        try:
            job = self.jobs.store.cancel(self.jobs.caller, job_id)
        except SpearError as error:
            assert error.code == "too_late"  # noqa: PT017  (it may go either way)
            assert row.publishing or row.status in TERMINAL
        else:
            assert not row.publishing
            if job.status == Status.CANCELLED:
                self.confirmed.add(job_id)

    # --- workers

    @rule()
    def claim_next(self) -> None:
        job = self.leases.claim_next(owner=f"w{next(names)}")
        if job:
            self.take(job)

    @precondition(lambda self: self.commits)
    @rule(pick=number)
    def claim_this(self, pick) -> None:
        """A message that was delivered, once more perhaps."""
        job_id = self.some(sorted(self.commits), pick)
        before = self.row(job_id)
        job = self.leases.claim(job_id, owner=f"w{next(names)}")
        if job:
            assert before.status not in TERMINAL
            assert job.lease_token == before.lease_token + 1
            self.take(job)

    @precondition(lambda self: self.held)
    @rule(pick=number, what=st.sampled_from(["renew", "look", "begin_stage", "report", "put_documents"]))
    def work(self, pick, what) -> None:
        lease = self.some(self.held, pick)
        arguments = {"begin_stage": ("scoring",), "put_documents": ({"scores": {}},)}.get(what, ())
        options = {"events": [NewEvent(type="x"), NewEvent(type="y")]} if what == "report" else {}
        self.write(lease, lambda: getattr(self.leases, what)(lease, *arguments, **options))

    @precondition(lambda self: self.held)
    @rule(pick=number, charge=st.booleans())
    def hand_back(self, pick, charge) -> None:
        lease = self.some(self.held, pick)
        self.write(
            lease, lambda: self.leases.hand_back(lease, error=ERROR if charge else None, charge=charge),
            allowed=(Status.RUNNING,), possible=self.claimable(lease, charge=charge),
        )

    @precondition(lambda self: self.held)
    @rule(pick=number, sends=st.booleans())
    def publish(self, pick, sends) -> None:
        """Record, and then send the commit or die."""
        lease = self.some(self.held, pick)
        if self.row(lease.job_id).publishing:  # the worker looks at the Hub first, see `settle` and `forget`
            return
        recorded = self.write(
            lease, lambda: self.leases.record_publishing(
                lease, parent="p", manifest_sha256="m", summary={}, seconds=100
            ), allowed=(Status.RUNNING,),
        )  # fmt: skip
        if recorded and sends:
            self.send(lease)

    @precondition(lambda self: self.held)
    @rule(pick=number)
    def send(self, pick) -> None:
        """The commit of a recorded publish, by its worker, early or late."""
        lease = pick if isinstance(pick, Lease) else self.some(self.held, pick)
        if not self.row(lease.job_id).publishing:
            return
        if self.write(lease, lambda: self.leases.check(lease), expired=True) and not self.commits[lease.job_id]:
            self.commits[lease.job_id] += 1

    @precondition(lambda self: self.held)
    @rule(pick=number)
    def forget(self, pick) -> None:
        lease = self.some(self.held, pick)
        row = self.row(lease.job_id)
        if row.publishing and not self.commits[lease.job_id]:
            self.write(lease, lambda: self.leases.forget_publishing(lease))

    @precondition(lambda self: self.held)
    @rule(pick=number)
    def settle(self, pick) -> None:
        """As a worker settles: by what stands on the Hub, and never while that is unknown."""
        lease = self.some(self.held, pick)
        row = self.row(lease.job_id)
        if self.commits[lease.job_id]:
            self.write(lease, lambda: self.leases.settle(lease, Status.SUCCEEDED, result={"commit": "c"}))
        elif row.status == Status.CANCELLING:
            self.write(lease, lambda: self.leases.settle(lease, Status.CANCELLED))
        elif not row.publishing:
            self.write(lease, lambda: self.leases.settle(lease, Status.FAILED, error=ERROR))

    # --- time and the sweep

    @precondition(lambda self: self.commits)
    @rule(pick=number, what=st.sampled_from(["lease_until", "deadline", "not_before", "announced_at"]))
    def let_time_pass(self, pick, what) -> None:
        job_id = self.some(sorted(self.commits), pick)
        self.jobs.execute(
            f"UPDATE jobs SET {what} = now() - interval '1 hour' "
            f"WHERE id = :id AND {what} IS NOT NULL AND status IN ('queued', 'running', 'cancelling')", id=job_id,
        )

    @rule()
    def sweep(self) -> None:
        self.jobs.rescue.sweep()

    # --- the promises

    @invariant()
    def holds(self) -> None:
        with self.jobs.database.transaction() as session:
            rows = session.execute(LOOK).all()
        assert {row.id for row in rows} == set(self.commits)
        for row in rows:
            self.check(row)
            self.before[row.id] = row

    def check(self, row) -> None:
        old = self.before.get(row.id)
        assert (row.first, row.last, row.events) == (1, row.event_seq, row.event_seq), "events have gaps"
        if old:
            assert row.lease_token >= old.lease_token
            assert row.version >= old.version
        if old and old.status in TERMINAL:
            assert row.lasting == old.lasting, "an ended job has changed"
        assert self.commits[row.id] <= 1
        if row.status in TERMINAL:
            assert (row.status == Status.SUCCEEDED) == (self.commits[row.id] == 1)
        if row.id in self.confirmed:
            assert row.status == Status.CANCELLED
        if row.status == Status.QUEUED:
            assert row.publishing or row.attempt < row.max_attempts, "a queued job that nobody may claim"
        if old and row.attempt > old.attempt:  # beyond its attempts a job is taken only to read the Hub's head
            assert row.attempt <= row.max_attempts or old.publishing

    # --- what the rules are made of

    def take(self, job) -> None:
        lease = Lease(job_id=job.id, token=job.lease_token)
        assert lease not in self.held, "a token was given twice"
        self.held.append(lease)

    def claimable(self, lease, *, charge) -> bool:
        row = self.row(lease.job_id)
        return row.publishing is not None or row.attempt - (not charge) < row.max_attempts

    def write(self, lease, call, *, allowed=HELD, expired=False, possible=True) -> bool:
        """Makes the write; it must go through for whoever has the token, and change nothing for anybody else."""
        row = self.row(lease.job_id)
        mine = possible and row.lease_token == lease.token and row.status in allowed and not (expired and row.over)
        try:
            call()
        except LeaseLostError:
            assert not mine
            after = self.row(lease.job_id)
            assert (after.version, after.lasting) == (row.version, row.lasting), "a stale write was accepted"
        else:
            assert mine
        return mine

    def row(self, job_id: str):
        with self.jobs.database.transaction() as session:
            return session.execute(ROW, {"id": job_id}).one()

    def some(self, among, pick: int):
        return among[pick % len(among)]


def test_no_order_of_events_breaks_a_promise(jobs):
    run_state_machine_as_test(
        lambda: Machine(jobs),
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None,
            derandomize=EXAMPLES <= 200, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
