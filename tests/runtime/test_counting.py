"""Metrics that are cheap to update: their samples are those that Prometheus's own metrics would have."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.counting import Counts, Durations, TenantCounts
from tests import hypothesis_profile  # noqa: F401

BOUNDS = (0.0005, 0.01, 1, 10)


def samples(registry: CollectorRegistry) -> list[str]:
    """The lines that are served, without the creation times of Prometheus's own metrics."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


class SameAsPrometheusTests(SynchronousTestCase):
    @given(st.lists(st.sampled_from((0.0, *BOUNDS, 11.0)) | st.floats(0, 100)))
    def test_durations(self, seconds: list[float]) -> None:
        """A histogram has the same buckets, also for values on their bounds, the same count and the same sum."""
        ours, theirs = CollectorRegistry(), CollectorRegistry()
        durations = Durations("a_seconds", "How long.", BOUNDS, ours)
        histogram = Histogram("a_seconds", "How long.", registry=theirs, buckets=BOUNDS)
        for each in seconds:
            durations.observe(each)
            histogram.observe(each)
        self.assertEqual(samples(ours), samples(theirs))

    @given(st.lists(st.sampled_from("ab")))
    def test_counts(self, happened: list[str]) -> None:
        """A counter has the same values, and 0 for labels that were not counted."""
        ours, theirs = CollectorRegistry(), CollectorRegistry()
        counts = Counts("things", "What happened.", "kind", "abc", ours)
        counter = Counter("things", "What happened.", ["kind"], registry=theirs)
        for kind in "abc":
            counter.labels(kind)
        for kind in happened:
            counts[kind].inc()
            counter.labels(kind).inc()
        self.assertEqual(samples(ours), samples(theirs))

    def test_names(self) -> None:
        """A name that is registered already is refused, as Prometheus refuses it."""
        registry = CollectorRegistry()
        Durations("a_seconds", "How long.", BOUNDS, registry)
        self.assertRaises(ValueError, Durations, "a_seconds", "How long.", BOUNDS, registry)


class TenantCountsTests(SynchronousTestCase):
    def samples(self, registry: CollectorRegistry) -> dict[tuple[str, str], float]:
        """The samples by tenant and outcome."""
        found = [sample for family in registry.collect() for sample in family.samples]
        return {(sample.labels["tenant"], sample.labels["outcome"]): sample.value for sample in found}

    def test_bounded(self) -> None:
        """A tenant that is configured counts by itself, and any number of others together."""
        registry = CollectorRegistry()
        counts = TenantCounts("c", "Text.", "outcome", ("acme", "globex"), registry)
        for number in range(100):
            counts.inc(f"t{number}", "accepted")
        for tenant in ("acme", "acme", "globex", None):
            counts.inc(tenant, "accepted")
        counts.inc("acme", "refused")
        self.assertEqual(
            self.samples(registry),
            {("other", "accepted"): 100, ("acme", "accepted"): 2, ("globex", "accepted"): 1, ("acme", "refused"): 1},
        )

    def test_none(self) -> None:
        """Without tenants there is nothing to tell, whatever a key says whose it is."""
        registry = CollectorRegistry()
        counts = TenantCounts("c", "Text.", "outcome", (), registry)
        counts.inc("acme", "accepted")
        self.assertEqual(list(registry.collect()), [])
