# -*- test-case-name: tests.fleet.test_parts -*-
"""The metrics of the whole fleet: those of its processes, and those that the parent counts itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openhqm.fleet.child import Child
from openhqm.fleet.metric_families import add, cumulative, snapshot
from openhqm.fleet.protocol import STATES, MetricFamily


class FleetMetrics:
    """The sum of all metrics. ``children`` returns the processes that run now.

    The counters of processes that have ended are kept as one sum, which does not grow with the number of processes.
    """

    def __init__(self, children: Callable[[], Iterable[Child]]) -> None:
        self._children = children
        self._ended: list[MetricFamily] = []
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_ProcessStates(children))
        ends = Counter(
            "openhqm_process_ends",
            "Processes that have ended: because they were told to, or because they died.",
            ["reason"],
            registry=self._registry,
        )
        self._told, self._died = ends.labels("told"), ends.labels("died")

    def ended(self, child: Child) -> None:
        """Count that ``child`` has ended, and keep the counters of its last report."""
        (self._told if child.leaving else self._died).inc()
        if child.report is not None:
            self._ended = add([self._ended, cumulative(child.report.metrics)])

    def collect(self) -> list[MetricFamily]:
        """The metrics of the fleet now. Those of a process are up to a second old."""
        running = [child.report.metrics for child in self._children() if child.report is not None]
        return add([*running, self._ended, snapshot(self._registry)])


class _ProcessStates(Collector):
    def __init__(self, children: Callable[[], Iterable[Child]]) -> None:
        self._children = children

    def collect(self) -> Iterable[Metric]:
        """The number of processes in each state."""
        found: dict[str, Any] = dict.fromkeys(STATES, 0)
        for child in self._children():
            found[child.state] += 1
        metric = GaugeMetricFamily("openhqm_processes", "Processes under the parent, by state.", labels=["state"])
        for state, count in found.items():
            metric.add_metric([state], count)
        yield metric
