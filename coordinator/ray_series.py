"""A run's numbers on the metrics port of the Ray node that the driver is on, which puts `ray_` before their names."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

from coordinator.metrics import COUNTERS, GAUGES, Metric


class RaySeries:
    """Implements `metrics.Series`. Ray takes the numbers up every ten seconds, in a thread of its own."""

    def __init__(self) -> None:
        self._gauges = {gauge: Gauge(gauge.name, gauge.says, gauge.tags) for gauge in GAUGES}
        self._counters = {counter: Counter(counter.name, counter.says, counter.tags) for counter in COUNTERS}

    def set(self, gauge: Metric, value: float, tags: Mapping[str, str]) -> None:
        self._gauges[gauge].set(value, dict(tags))

    def count(self, counter: Metric, tags: Mapping[str, str]) -> None:
        self._counters[counter].inc(1, dict(tags))
