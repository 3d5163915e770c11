# -*- test-case-name: tests.runtime.test_counting -*-
"""Metrics whose update costs an addition: they become Prometheus samples only when they are collected.

Prometheus's own counters take a lock at each update. These are updated and collected in the reactor's thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

OTHER = "other"
"""In place of the name of a tenant that has no value of its own."""


class Count:
    """The value of a counter for one label."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, by: int = 1) -> None:
        """Add ``by``."""
        self.value += by


class Counts(Collector):
    """A counter called ``name`` in ``registry``, with a `Count` for each of the ``values`` of its one label.

    `inc` adds further values. The caller bounds how many there can be.
    """

    def __init__(
        self, name: str, documentation: str, label: str, values: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._names = (name, documentation, (label,))
        self._counts = {value: Count() for value in values}
        registry.register(self)

    def __getitem__(self, value: str) -> Count:
        return self._counts[value]

    def inc(self, value: str, by: int = 1) -> None:
        """Add ``by`` to the count of ``value``, which need not be there yet."""
        count = self._counts.get(value)
        if count is None:
            count = self._counts[value] = Count()
        count.value += by

    def collect(self) -> Iterable[CounterMetricFamily]:
        """The counter's samples."""
        name, documentation, labels = self._names
        family = CounterMetricFamily(name, documentation, labels=labels)
        for value, count in self._counts.items():
            family.add_metric((value,), count.value)
        return (family,)

    describe = collect


class TenantCounts(Collector):
    """A counter called ``name`` in ``registry``, with the labels ``tenant`` and ``label``.

    ``tenants`` are those that have a value of their own; all others are `OTHER`. The caller bounds how many values of
    ``label`` there can be. Without tenants it has no samples, and counts nothing.
    """

    def __init__(
        self, name: str, documentation: str, label: str, tenants: Collection[str], registry: CollectorRegistry
    ) -> None:
        self._names = (name, documentation, ("tenant", label))
        self._tenants = frozenset(tenants)
        self._counts: dict[tuple[str, str], int] = {}
        registry.register(self)

    def inc(self, tenant: str | None, value: str, by: int = 1) -> None:
        """Count ``by`` more of ``tenant``; None: it has none."""
        if self._tenants and tenant is not None and by:
            key = (tenant if tenant in self._tenants else OTHER, value)
            self._counts[key] = self._counts.get(key, 0) + by

    def collect(self) -> Iterable[CounterMetricFamily]:
        """The counter's samples."""
        if not self._tenants:
            return ()
        name, documentation, labels = self._names
        family = CounterMetricFamily(name, documentation, labels=labels)
        for key, count in self._counts.items():
            family.add_metric(key, count)
        return (family,)

    def describe(self) -> Iterable[CounterMetricFamily]:
        """The name, which is taken also while it has no samples."""
        name, documentation, labels = self._names
        return (CounterMetricFamily(name, documentation, labels=labels),)


class Durations(Collector):
    """A histogram called ``name`` in ``registry``. ``bounds``, in seconds and ascending, are the upper bounds of its
    buckets.
    """

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._names = (name, documentation)
        self._bounds = tuple(map(float, bounds))
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count a duration in seconds, so many times."""
        self._counts[bisect_left(self._bounds, seconds)] += times
        self._sum += seconds * times

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """The histogram's samples. Each bucket includes the buckets below it."""
        family = HistogramMetricFamily(*self._names)
        ends = map(floatToGoString, (*self._bounds, float("inf")))
        family.add_metric((), list(zip(ends, accumulate(self._counts), strict=True)), self._sum)
        return (family,)

    describe = collect
