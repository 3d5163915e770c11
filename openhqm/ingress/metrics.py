# -*- test-case-name: tests.ingress.test_http -*-
"""The metrics of the door. Labels are bound once; no label holds a value of a request."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Gauge
from twisted.internet.interfaces import IReactorTime

from openhqm.runtime.counting import Counts, Durations, TenantCounts

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
STRAIGHT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30, 100)


class DoorMetrics:
    """The metrics of the door, registered in ``registry``. ``tenants`` are those that are counted by themselves."""

    def __init__(self, registry: CollectorRegistry, tenants: Collection[str] = ()) -> None:
        text = "Submissions, by tenant and outcome."
        self._tenants = TenantCounts("openhqm_tenant_submissions", text, "outcome", tenants, registry)
        outcomes = ("accepted", "replayed", "refused", "unavailable", "limited")
        text = "Submissions, by outcome."
        self._submissions = Counts("openhqm_submissions", text, "outcome", outcomes, registry)
        self.ingest = Durations(
            "openhqm_ingest_duration_seconds",
            "From the last byte of a submission to its answer, without the time of a long poll.",
            SECONDS,
            registry,
        )
        self.publish = Durations(
            "openhqm_publish_duration_seconds", "How long the queue took to accept a submission.", SECONDS, registry
        )
        self.open_streams = Gauge("openhqm_open_streams", "Event streams that are open.", registry=registry)
        self.open_sockets = Gauge("openhqm_open_sockets", "WebSockets that are open.", registry=registry)

    def count(self, outcome: str, tenant: str | None, submissions: int = 1) -> None:
        """Count so many ``submissions`` of ``tenant``; None: they have none."""
        self._submissions.inc(outcome, submissions)
        if tenant is not None:
            self._tenants.inc(tenant, outcome, submissions)


class EndingStreamMetrics:
    """The metrics of streams over many requests, registered in ``registry``: `delivery.ending_stream.StreamCounts`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        happenings = ("sent", "reset", "paused")
        counts = Counts(
            "openhqm_ending_streams_events",
            "Events sent on streams over many requests, clients that may have missed some, and pauses of slow clients.",
            "what",
            happenings,
            registry,
        )
        self.sent, self.resets, self.pauses = (counts[each] for each in happenings)
        self.open = Gauge(
            "openhqm_open_ending_streams", "Streams over many requests that are open.", registry=registry
        ).set


class StraightMetrics:
    """The metrics of requests that pass straight through to the application, registered in ``registry``."""

    def __init__(self, registry: CollectorRegistry, clock: IReactorTime) -> None:
        self.clock = clock
        self._requests = Counts(
            "openhqm_straight_requests",
            "Requests that passed straight through, by status; aborted: the client got no complete response.",
            "status",
            ("aborted",),
            registry,
        )
        self._duration = Durations(
            "openhqm_straight_request_duration_seconds",
            "From when a request that passes straight through is sent on to the end of its response.",
            STRAIGHT_SECONDS,
            registry,
        )
        self.tunnels = Gauge(
            "openhqm_straight_websockets_open", "WebSockets of the application that are open.", registry=registry
        )

    def ended(self, status: int | None, began_at: float) -> None:
        """Count a request that began at ``began_at``. ``status`` is that of its complete response, if any."""
        self._requests.inc("aborted" if status is None else str(status))
        self._duration.observe(self.clock.seconds() - began_at)
