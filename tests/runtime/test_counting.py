"""Counting: what is collected is what Prometheus's own counters would have said."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.counting import Counts, Durations
from tests import hypothesis_profile  # noqa: F401

BOUNDS = (0.0005, 0.01, 1, 10)


def text(registry: CollectorRegistry) -> list[str]:
    """What is served, without the times at which Prometheus's own were made."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


class Same(SynchronousTestCase):
    @given(st.lists(st.sampled_from((0.0, *BOUNDS, 11.0)) | st.floats(0, 100)))
    def test_durations(self, seconds: list[float]) -> None:
        """The same buckets, on their bounds as well, the same count and the same sum."""
        ours, theirs = CollectorRegistry(), CollectorRegistry()
        durations = Durations("a_seconds", "How long.", BOUNDS, ours)
        histogram = Histogram("a_seconds", "How long.", registry=theirs, buckets=BOUNDS)
        for each in seconds:
            durations.observe(each)
            histogram.observe(each)
        self.assertEqual(text(ours), text(theirs))

    @given(st.lists(st.sampled_from("ab")))
    def test_counts(self, happened: list[str]) -> None:
        """The same numbers, and a zero for what has not happened yet."""
        ours, theirs = CollectorRegistry(), CollectorRegistry()
        counts = Counts("things", "What happened.", "kind", "abc", ours)
        counter = Counter("things", "What happened.", ["kind"], registry=theirs)
        for kind in "abc":
            counter.labels(kind)
        for kind in happened:
            counts[kind].inc()
            counter.labels(kind).inc()
        self.assertEqual(text(ours), text(theirs))

    def test_names(self) -> None:
        """A name that is taken is refused, as Prometheus's own would be."""
        registry = CollectorRegistry()
        Durations("a_seconds", "How long.", BOUNDS, registry)
        self.assertRaises(ValueError, Durations, "a_seconds", "How long.", BOUNDS, registry)
