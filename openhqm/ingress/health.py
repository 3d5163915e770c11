# -*- test-case-name: tests.test_health -*-
"""Health for people, probes and load balancers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from openhqm import __version__
from openhqm.ingress.answers import problem
from openhqm.ingress.queue_metrics import Metrics
from openhqm.interfaces import IMessageQueue
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.http1_messages import Answer

METRICS = b"text/plain; version=0.0.4; charset=utf-8"


class Health:
    """``worker_trouble`` says why no work is done although it should be, or None; ``warnings`` what to know besides."""

    def __init__(
        self,
        queue: IMessageQueue,
        queue_type: str,
        metrics: Metrics | None,
        worker_trouble: Callable[[], str | None],
        warnings: Callable[[], Sequence[str]],
    ) -> None:
        self.draining = False  # set once the process has been told to stop
        self._queue = queue
        self._type = queue_type
        self._metrics = metrics
        self._worker_trouble = worker_trouble
        self._warnings = warnings

    def overview(self) -> Answer:
        """200 with ``status`` ok, or 503 with what is wrong."""
        troubles = [trouble for trouble in (self._not_ready(), self._worker_trouble()) if trouble]
        document = {
            "status": "degraded" if troubles else "ok",
            "version": __version__,
            "queue": {"type": self._type, "durable": self._queue.capabilities.durable},
            "troubles": troubles,
            "warnings": [*self._queue.warnings, *self._warnings()],
        }
        return Answer(503 if troubles else 200, msgspec.json.encode(document))

    def live(self) -> Answer:
        """503 where only a new process would help."""
        trouble = self._worker_trouble()
        return problem(503, trouble) if trouble else _ok("live")

    def ready(self) -> Answer:
        """503 where a 202 could not be kept, and while the process is stopping."""
        trouble = self._not_ready()
        return problem(503, trouble) if trouble else _ok("ready")

    @deferred
    async def metrics(self) -> Answer:
        """Everything that is counted, in Prometheus's text format."""
        if self._metrics is None:
            return problem(404, "monitoring.metrics_enabled is false")
        return Answer(200, await self._metrics.text(), METRICS)

    def _not_ready(self) -> str | None:
        return "stopping" if self.draining else self._queue.trouble


def _ok(status: str) -> Answer:
    return Answer(200, b'{"status":"%b"}' % status.encode())
