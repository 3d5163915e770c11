# -*- test-case-name: tests.ingress.test_http -*-
"""The metrics of the workers. Labels are bound once; no label holds a value of a request."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter

from openhqm.messages import Request
from openhqm.runtime.counting import Counts, Durations, TenantCounts

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

OUTCOMES = ("delivered", "retried", "dead")
"""What becomes of an attempt at a callback."""


class WorkerMetrics:
    """The metrics of the workers, registered in ``registry``. ``tenants`` are those that are counted by themselves."""

    def __init__(self, registry: CollectorRegistry, tenants: Collection[str] = ()) -> None:
        text = "What workers did for requests: ended, retried, dead_lettered."
        self._tenants = TenantCounts("openhqm_tenant_work", text, "what", tenants, registry)
        self._processing = Durations(
            "openhqm_processing_duration_seconds",
            "One attempt, from receiving the delivery to settling it.",
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
            "Settlements of deliveries that were closed before, which were dropped.",
            registry=registry,
        )
        self._callbacks = Counts(
            "openhqm_callbacks", "Attempts at callbacks, by what became of them.", "outcome", OUTCOMES, registry
        )

    def called_back(self, outcome: str) -> None:
        """Count an attempt at a callback with one of `OUTCOMES`."""
        self._callbacks[outcome].inc()

    def processed(self, seconds: float) -> None:
        """Count an attempt that took ``seconds``."""
        self._processing.observe(seconds)

    def finished(self, request: Request, now: float) -> None:
        """Count a request that a worker ended at ``now``, in seconds since the epoch."""
        self._whole.observe(now - request.submitted_at)
        self._tenants.inc(request.submission.tenant, "ended")

    def retried(self, request: Request) -> None:
        """Count a failed attempt that another one will follow."""
        self._retries.inc()
        self._tenants.inc(request.submission.tenant, "retried")

    def dead_lettered(self, request: Request) -> None:
        """Count a request that became a dead letter."""
        self._dead.inc()
        self._tenants.inc(request.submission.tenant, "dead_lettered")

    def late(self) -> None:
        """Count a settlement that came after its delivery was closed."""
        self._late.inc()
