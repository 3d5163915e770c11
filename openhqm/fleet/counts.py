# -*- test-case-name: tests.fleet.test_parts -*-
"""What all processes have counted together, and what the parent counts itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openhqm.fleet.child import Child
from openhqm.fleet.figures import added, figures_of, lasting
from openhqm.fleet.protocol import STATES, Family


class Counts:
    """``children`` are those that live. What others have counted is kept in sums, whatever their number was."""

    def __init__(self, children: Callable[[], Iterable[Child]]) -> None:
        self._children = children
        self._ended: list[Family] = []
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Processes(children))
        ends = Counter(
            "openhqm_process_ends",
            "Processes that have ended: because they were told to, or because they died.",
            ["reason"],
            registry=self._registry,
        )
        self._told, self._died = ends.labels("told"), ends.labels("died")

    def ended(self, child: Child) -> None:
        """Keep what it has counted, as far as it was heard of."""
        (self._told if child.leaving else self._died).inc()
        if child.report is not None:
            self._ended = added([self._ended, lasting(child.report.figures)])

    def all(self) -> list[Family]:
        """Everything, of everybody."""
        living = [child.report.figures for child in self._children() if child.report is not None]
        return added([*living, self._ended, figures_of(self._registry)])


class _Processes(Collector):
    def __init__(self, children: Callable[[], Iterable[Child]]) -> None:
        self._children = children

    def collect(self) -> Iterable[Metric]:
        """How many there are in each state."""
        found: dict[str, Any] = dict.fromkeys(STATES, 0)
        for child in self._children():
            found[child.state] += 1
        metric = GaugeMetricFamily("openhqm_processes", "Processes under the parent, by state.", labels=["state"])
        for state, count in found.items():
            metric.add_metric([state], count)
        yield metric
