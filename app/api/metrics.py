"""The figures in Prometheus' text format: those that the rows tell, and what this process has counted itself."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.api.services import Services
from app.counters import counters
from app.exposition import Counted
from app.jobs.figures import Figures, Totals
from app.jobs.states import ACTIVE, Kind
from app.jobs.workers import State, Workers

PUBLISHES = {
    "publish.started": "recorded", "publish.absent": "absent", "publish.late": "late",
}  # fmt: skip


def render(services: Services) -> bytes:
    """All of it, now."""
    registry = CollectorRegistry()
    registry.register(Rows(services.figures, services.workers))
    registry.register(Counted(counters))
    return generate_latest(registry)


class Rows(Collector):
    """Read from the database when asked, so that every replica tells the same."""

    def __init__(self, figures: Figures, workers: Workers) -> None:
        self._figures = figures
        self._workers = workers

    def describe(self) -> list[Metric]:
        return []  # without this the registry would query the database when the collector is registered

    def collect(self) -> Iterator[Metric]:
        yield from self._standing()
        totals = self._figures.totals()
        yield from _ended(totals)
        yield _stages(totals)
        yield from _words(totals)

    def _standing(self) -> Iterator[Metric]:
        now = self._figures.now()
        jobs = GaugeMetricFamily("spear_jobs", "Jobs that have not ended", labels=["kind", "status"])
        for kind in sorted(Kind):
            for status in sorted(ACTIVE):
                jobs.add_metric([kind, status], now.active.get((kind, status), 0))
        yield jobs
        oldest = max(now.oldest_queued.values(), default=0.0)
        yield GaugeMetricFamily("spear_oldest_queued_seconds", "Age of the oldest queued job", value=oldest)
        yield GaugeMetricFamily("spear_overdue_jobs", "Jobs whose lease has run out unrescued", value=now.overdue)
        yield self._present()
        yield GaugeMetricFamily("spear_webhooks_waiting", "Webhooks not delivered yet", value=now.waiting_webhooks)

    def _present(self) -> Metric:
        present = Counter(worker.state for worker in self._workers.find())
        workers = GaugeMetricFamily("spear_workers", "Workers by what they are at", labels=["state"])
        for state in sorted(State):
            workers.add_metric([state], present[state])
        return workers


def _ended(totals: Totals) -> Iterator[Metric]:
    ended = CounterMetricFamily("spear_jobs_ended", "Jobs that have ended", labels=["kind", "status", "code"])
    for key, count in sorted(totals.ended.items()):
        ended.add_metric(key, count)
    yield ended


def _stages(totals: Totals) -> Metric:
    stages = HistogramMetricFamily("spear_stage_seconds", "How long stages took", labels=["kind", "stage"])
    for key, spread in sorted(totals.stages.items()):
        stages.add_metric(key, spread.cumulative(), spread.seconds)
    return stages


def _words(totals: Totals) -> Iterator[Metric]:
    lost = 0
    requeued: dict[str, int] = {}
    published = dict.fromkeys(("recorded", "published", "absent", "late", "failed"), 0)
    for (kind, stage, code), count in totals.events.items():
        lost += count if code == "worker_lost" else 0
        if kind == "job.requeued":
            requeued[code or "drained"] = requeued.get(code or "drained", 0) + count
        elif outcome := _outcome(kind, stage, code):
            published[outcome] += count
    yield CounterMetricFamily("spear_lease_expiries", "Workers that went away from a job", value=lost)
    yield _labelled("spear_requeues", "Jobs queued again after an attempt", "code", requeued)
    yield _labelled("spear_publishes", "Publishes by outcome", "outcome", published)


def _outcome(kind: str, stage: str, code: str) -> str | None:
    if kind == "job.succeeded":
        return "published" if code == "published" else None
    if kind == "job.failed":
        return "failed" if stage == "publishing" else None
    return PUBLISHES.get(kind)


def _labelled(name: str, about: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, about, labels=[label])
    for key, count in sorted(values.items()):
        family.add_metric([key], count)
    return family
