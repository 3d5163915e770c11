# -*- test-case-name: tests.runtime.test_counting -*-
"""Counting at the price of an addition: what each request counts is read only when somebody collects.

Prometheus's own counters take a lock each time. These are counted in the reactor's thread, and collected there, too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count:
    """How often something has happened."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """It has happened once more."""
        self.value += 1


class Counts(Collector):
    """A counter in ``registry``, with a `Count` for each of the ``values`` of its one label."""

    def __init__(self, name: str, words: str, label: str, values: Sequence[str], registry: CollectorRegistry) -> None:
        self._names = (name, words, (label,))
        self._counts = {value: Count() for value in values}
        registry.register(self)

    def __getitem__(self, value: str) -> Count:
        return self._counts[value]

    def collect(self) -> Iterable[CounterMetricFamily]:
        """What was counted until now."""
        name, words, labels = self._names
        family = CounterMetricFamily(name, words, labels=labels)
        for value, count in self._counts.items():
            family.add_metric((value,), count.value)
        return (family,)

    describe = collect


class Durations(Collector):
    """A histogram in ``registry``; ``bounds``, in seconds and ascending, are the upper ends of its buckets."""

    def __init__(self, name: str, words: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._names = (name, words)
        self._bounds = tuple(map(float, bounds))
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """Something took this long."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """What was observed until now: each bucket has those below it in it."""
        family = HistogramMetricFamily(*self._names)
        ends = map(floatToGoString, (*self._bounds, float("inf")))
        family.add_metric((), list(zip(ends, accumulate(self._counts), strict=True)), self._sum)
        return (family,)

    describe = collect
