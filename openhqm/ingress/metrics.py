# -*- test-case-name: tests.ingress.test_http -*-
"""What the door counts. Labels are bound once; nothing is labelled by request."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from openhqm.runtime.counting import Counts, Durations

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class DoorMetrics:
    """The door's metrics in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        outcomes = ("accepted", "replayed", "refused", "unavailable")
        submissions = Counts(
            "openhqm_submissions", "Submissions by what became of them.", "outcome", outcomes, registry
        )
        self.accepted, self.replayed, self.refused, self.unavailable = (submissions[outcome] for outcome in outcomes)
        self.ingest = Durations(
            "openhqm_ingest_duration_seconds",
            "From a submission's last byte to its answer being ready, without any waiting for its end.",
            SECONDS,
            registry,
        )
        self.publish = Durations(
            "openhqm_publish_duration_seconds", "Until the queue had made it safe.", SECONDS, registry
        )
        self.open_streams = Gauge("openhqm_open_streams", "Event streams that are open.", registry=registry)
