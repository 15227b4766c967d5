"""What /metrics tells, from the rows and from what a process has counted."""

import re
import socket
import time
import urllib.request
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, text

from app.counters import COUNTED, Counters
from app.errors import Code, SpearError
from app.jobs.changes import NewEvent
from app.jobs.figures import Figures
from app.jobs.leases import Lease
from app.jobs.states import Status
from app.jobs.workers import Workers

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text) for sample in family.samples
    }  # fmt: skip


def at(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def claimed(jobs, target: str) -> Lease:
    job_id = jobs.submit(target)
    job = jobs.leases.claim(job_id, owner="w:1")
    return Lease(job_id=job_id, token=job.lease_token)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_figures_are_those_of_the_rows(api):
    from app.jobs.leases import Leases

    first, second = (api.submit(api.recipe(target={"repo": f"{api.user}/t{n}"})).json()["id"] for n in (1, 2))
    leases = Leases(api.services.database, seconds=60)
    job = leases.claim(first, owner="w:1")
    lease = Lease(job_id=first, token=job.lease_token)
    leases.begin_stage(lease, "resolving")
    leases.begin_stage(lease, "publishing")
    leases.settle(lease, Status.SUCCEEDED, result={"repo": "a/b", "commit": "c" * 40, "url": "u"})
    text = api.http.get("/metrics").text
    found = samples(text)
    assert at(found, "spear_jobs", kind="merge", status="queued") == 1
    assert at(found, "spear_jobs", kind="merge", status="running") == 0
    assert at(found, "spear_oldest_queued_seconds") > 0
    assert at(found, "spear_jobs_ended_total", kind="merge", status="succeeded", code="") == 1
    assert at(found, "spear_publishes_total", outcome="published") == 1
    assert at(found, "spear_publishes_total", outcome="late") == 0
    assert at(found, "spear_lease_expiries_total") == 0
    assert at(found, "spear_stage_seconds_count", kind="merge", stage="resolving") == 1
    assert at(found, "spear_stage_seconds_bucket", kind="merge", stage="publishing", le="15") == 1
    assert at(found, "spear_hub_calls_total", outcome="ok") > 0  # the request was checked against the Hub
    assert second not in text, "a job's id is no label: there would be no end of series"


def test_deaths_and_returns_are_counted(jobs):
    lease = claimed(jobs, "org/a")
    jobs.leases.hand_back(lease, charge=False)
    jobs.execute("UPDATE jobs SET not_before = NULL")
    claimed(jobs, "org/b")
    jobs.execute("UPDATE jobs SET lease_until = now() - interval '1 s' WHERE status = 'running'")
    figures = Figures(jobs.database)
    assert figures.now().overdue == 1
    jobs.rescue.sweep()
    from app.api.metrics import Rows

    assert figures.now().overdue == 0
    found = {
        (sample.name, sample.labels.get("code")): sample.value
        for family in Rows(figures, Workers(jobs.database, lost_seconds=60)).collect() for sample in family.samples
    }  # fmt: skip
    assert found["spear_lease_expiries_total", None] == 1
    assert found["spear_requeues_total", "worker_lost"] == 1
    assert found["spear_requeues_total", "drained"] == 1


@pytest.mark.parametrize("settled", [0, 90])
def test_what_is_settled_is_not_counted_twice_nor_forgotten(jobs, monkeypatch, settled):
    """Whether rows are kept as sums at once or read again each time."""
    monkeypatch.setattr("app.jobs.figures.SETTLED", timedelta(seconds=settled))
    figures = Figures(jobs.database)
    for number in range(4):
        lease = claimed(jobs, f"org/{number}")
        jobs.leases.begin_stage(lease, "merging")
        jobs.leases.report(lease, events=[NewEvent(type="publish.late")])
        jobs.leases.settle(lease, Status.FAILED, error={"code": "stalled"})
        totals = figures.totals()
        assert totals.ended["merge", "failed", "stalled"] == number + 1
        assert totals.stages["merge", "merging"].cumulative()[-1] == ("+Inf", number + 1)
        assert sum(count for (kind, _, _), count in totals.events.items() if kind == "publish.late") == number + 1
    fresh = Figures(jobs.database).totals()
    assert (fresh.ended, fresh.events) == (totals.ended, totals.events)
    assert fresh.stages["merge", "merging"].seconds == pytest.approx(totals.stages["merge", "merging"].seconds)


def test_a_worker_tells_its_own_on_its_port_alone(tmp_path, free_port):
    from app.counters import counters
    from app.settings import Settings
    from worker.metrics import serve

    counters.add("spear_bytes", 12, stage="downloading")
    serve(Settings(data_dir=tmp_path))  # no port: nothing is served
    serve(Settings(data_dir=tmp_path, metrics_port=free_port))
    with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics") as answer:
        found = samples(answer.read().decode())
    assert at(found, "spear_bytes_total", stage="downloading") >= 12
    assert at(found, "spear_child_peak_bytes") >= 0
    serve(Settings(data_dir=tmp_path, metrics_port=free_port))  # taken: a line in the log, and work goes on


def test_calls_that_fail_are_counted_by_their_code(local_hub):
    from app.counters import counters
    from app.hub.client import Hub

    def count() -> float:
        return sum(v for name, labels, v in counters.read() if labels.get("outcome") == "repo_not_found")

    before = count()
    with pytest.raises(SpearError) as caught:
        Hub(local_hub.endpoint, None, timeout_seconds=5).check_access("nobody/nothing")
    assert caught.value.code is Code.REPO_NOT_FOUND
    assert count() == before + 1


def test_a_counter_has_a_name_that_is_explained():
    counted = Counters()
    with pytest.raises(KeyError):
        counted.add("spear_unknown")
    counted.add("spear_hub_calls", outcome="ok")
    counted.add("spear_hub_calls", 2, outcome="ok")
    assert list(counted.read()) == [("spear_hub_calls", {"outcome": "ok"}, 3)]
    assert all(COUNTED.values())


FILL = """
INSERT INTO jobs (id, owner, key_id, status, recipe, resolved, labels, max_attempts, result, ended_at, created_at)
  SELECT 'mrg_' || lpad(n::text, 26, '0'), 'team', (SELECT id FROM api_keys LIMIT 1), 'succeeded', '{}', '{}', '{}', 3,
    '{}', now() - interval '1 day', now() - interval '2 days' FROM generate_series(1, 10000) AS n;
INSERT INTO stages (job_id, attempt, name, started_at, ended_at)
  SELECT id, 1, 'stage' || s, now() - interval '25 hours', now() - interval '1 day'
  FROM jobs, generate_series(1, 7) AS s;
INSERT INTO events (job_id, seq, type, data, at)
  SELECT id, s, CASE WHEN s = 1 THEN 'job.succeeded' ELSE 'merging.step' END, '{}', now() - interval '1 day'
  FROM jobs, generate_series(1, 20) AS s;
"""


def test_a_scrape_reads_what_is_new_and_nothing_else(jobs):
    """70 000 stages and 200 000 events of yesterday: read once, and not looked at again."""
    jobs.execute(FILL)
    with jobs.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    figures = Figures(jobs.database)
    begun = time.perf_counter()
    assert figures.totals().stages["merge", "stage7"].cumulative()[-1] == ("+Inf", 10_000)
    first = time.perf_counter() - begun
    asked = []
    event.listen(jobs.database.engine, "before_cursor_execute", lambda *found: asked.append((found[2], found[3])))
    begun = time.perf_counter()
    assert figures.totals().ended["merge", "succeeded", ""] == 10_000
    later = time.perf_counter() - begun
    print(f"first {1000 * first:.0f} ms, later {1000 * later:.1f} ms")
    plans = ""
    with jobs.database.engine.connect() as connection:
        cursor = connection.connection.cursor()
        for statement, parameters in asked:
            if "FROM" in statement:
                cursor.execute("EXPLAIN " + statement, parameters)
                plans += "\n".join(row[0] for row in cursor.fetchall())
    assert {"ix_jobs_ended_at", "ix_stages_ended_at", "ix_events_counted"} <= set(re.findall(r"ix_\w+", plans))
    assert "Seq Scan" not in plans
    assert later < first
