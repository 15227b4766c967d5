"""A worker's own figures: what it has counted, and how much memory its children took. Off unless a port is set."""

import resource
from collections.abc import Iterator

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.counters import counters
from app.exposition import Counted
from app.settings import Settings

log = structlog.get_logger()


class _Memory(Collector):
    """The kernel's word on the largest of the computing children that have ended."""

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        largest = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # Linux tells kibibytes
        yield GaugeMetricFamily("spear_child_peak_bytes", "Largest resident memory of a computing child", value=largest)


def serve(settings: Settings) -> None:
    """Answer `GET /metrics` on the configured port from now on; a port that is taken is told, and done without."""
    if not settings.metrics_port:
        return
    registry = CollectorRegistry()
    registry.register(Counted(counters))
    registry.register(_Memory())
    try:
        start_http_server(settings.metrics_port, addr=settings.metrics_host, registry=registry)
    except OSError as error:
        log.warning("metrics.unserved", port=settings.metrics_port, error=error.strerror)
