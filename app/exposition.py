"""What a process has counted, in Prometheus' text format; for the API and for the workers."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from app.counters import COUNTED, Counters


class Counted(Collector):
    """What a process has counted since it began."""

    def __init__(self, source: Counters) -> None:
        self._source = source

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        found: dict[str, CounterMetricFamily] = {}
        for name, labels, value in self._source.read():
            family = found.setdefault(name, CounterMetricFamily(name, COUNTED[name], labels=sorted(labels)))
            family.add_metric([labels[label] for label in sorted(labels)], value)
        yield from found.values()
