# -*- test-case-name: tests.ingress.test_http -*-
"""What the workers count. Labels are bound once; nothing is labelled by request."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from openhqm.messages import Request
from openhqm.runtime.counting import Durations

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class WorkerMetrics:
    """The workers' metrics in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._processing = Durations(
            "openhqm_processing_duration_seconds",
            "One attempt, from loan to settling.",
            SECONDS,
            registry,
        )
        self._whole = Durations(
            "openhqm_request_duration_seconds",
            "From acceptance to the ending, for requests that a worker ended.",
            SECONDS,
            registry,
        )
        self._retries = Counter("openhqm_retries", "Attempts that will be followed by another.", registry=registry)
        self._dead = Counter("openhqm_dead_letters", "Requests that became dead letters.", registry=registry)
        self._late = Counter(
            "openhqm_late_settlements",
            "Settlements that came after the loan was over, and were dropped.",
            registry=registry,
        )

    def processed(self, seconds: float) -> None:
        """An attempt took this long."""
        self._processing.observe(seconds)

    def finished(self, request: Request, now: float) -> None:
        """A request has its ending."""
        self._whole.observe(now - request.submitted_at)

    def retried(self) -> None:
        """An attempt failed and is not the last."""
        self._retries.inc()

    def buried(self) -> None:
        """A request became a dead letter."""
        self._dead.inc()

    def late(self) -> None:
        """A settlement came too late."""
        self._late.inc()
