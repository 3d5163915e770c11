# -*- test-case-name: tests.fleet.test_parts -*-
"""Metrics of several processes, added up. What a process counted is not taken back when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from openhqm.fleet.protocol import Family

LASTING = frozenset(("counter", "histogram", "summary"))
"""Kinds of metrics that only grow, and outlive the process that counted."""

# Everything else is added. These say the same of each process, or belong to the oldest.
_RULES: dict[str, Callable[[float, float], float]] = {
    "openhqm_build_info": max,
    "process_start_time_seconds": min,
    "process_max_fds": min,
}


def figures_of(registry: CollectorRegistry) -> list[Family]:
    """What is in ``registry`` now."""
    return [
        Family(metric.name, metric.type, metric.documentation, [(s.name, s.labels, s.value) for s in metric.samples])
        for metric in registry.collect()
    ]


def lasting(figures: Iterable[Family]) -> list[Family]:
    """What of ``figures`` stays when the process that counted has ended."""
    return [family for family in figures if family.kind in LASTING]


def added(reports: Iterable[Sequence[Family]]) -> list[Family]:
    """The figures of several processes as if one had counted."""
    families: dict[str, tuple[Family, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
    for figures in reports:
        for family in figures:
            _, sums = families.setdefault(family.name, (family, {}))
            for name, labels, value in family.samples:
                key = (name, tuple(labels.items()))
                sums[key] = _rule(family, name)(sums[key], value) if key in sums else value
    return [
        Family(
            name, family.kind, family.help, [(sample, dict(labels), sums[sample, labels]) for sample, labels in sums]
        )
        for name, (family, sums) in families.items()
    ]


def _rule(family: Family, sample: str) -> Callable[[float, float], float]:
    if family.kind in LASTING and sample.endswith("_created"):
        return min
    return _RULES.get(family.name, float.__add__)


def metrics_of(figures: Iterable[Family]) -> list[Metric]:
    """The same as Prometheus's client has them."""
    metrics = []
    for family in figures:
        metric = Metric(family.name, family.help, family.kind)
        metric.samples = [Sample(name, labels, value) for name, labels, value in family.samples]
        metrics.append(metric)
    return metrics
