# -*- test-case-name: tests.fleet.test_parts -*-
"""Sums of the metrics of several processes. Counters of a process that has ended stay in the sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from openhqm.fleet.protocol import MetricFamily

CUMULATIVE = frozenset(("counter", "histogram", "summary"))
"""The kinds of metrics that only grow. They outlive their process; a gauge ends with it."""

# All other metrics are added. These have the same value in each process, or that of the oldest process counts.
_RULES: dict[str, Callable[[float, float], float]] = {
    "openhqm_build_info": max,
    "process_start_time_seconds": min,
    "process_max_fds": min,
}


def snapshot(registry: CollectorRegistry) -> list[MetricFamily]:
    """The metrics in ``registry`` as they are now."""
    return [
        MetricFamily(
            metric.name, metric.type, metric.documentation, [(s.name, s.labels, s.value) for s in metric.samples]
        )
        for metric in registry.collect()
    ]


def cumulative(families: Iterable[MetricFamily]) -> list[MetricFamily]:
    """Those ``families`` that outlive their process."""
    return [family for family in families if family.kind in CUMULATIVE]


def add(snapshots: Iterable[Sequence[MetricFamily]]) -> list[MetricFamily]:
    """The metrics of several processes as if one process had counted them."""
    families: dict[str, tuple[MetricFamily, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
    for one in snapshots:
        for family in one:
            _, sums = families.setdefault(family.name, (family, {}))
            for name, labels, value in family.samples:
                key = (name, tuple(labels.items()))
                sums[key] = _rule(family, name)(sums[key], value) if key in sums else value
    return [
        MetricFamily(
            name, family.kind, family.help, [(sample, dict(labels), sums[sample, labels]) for sample, labels in sums]
        )
        for name, (family, sums) in families.items()
    ]


def _rule(family: MetricFamily, sample: str) -> Callable[[float, float], float]:
    if family.kind in CUMULATIVE and sample.endswith("_created"):
        return min
    return _RULES.get(family.name, float.__add__)


def to_prometheus(families: Iterable[MetricFamily]) -> list[Metric]:
    """``families`` as metrics of the Prometheus client, which writes their text format."""
    metrics = []
    for family in families:
        metric = Metric(family.name, family.help, family.kind)
        metric.samples = [Sample(name, labels, value) for name, labels, value in family.samples]
        metrics.append(metric)
    return metrics
