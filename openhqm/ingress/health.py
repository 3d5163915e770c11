# -*- test-case-name: tests.test_health -*-
"""Health for people, probes and load balancers; and the metrics that are read rather than counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IReactorTime

from openhqm import __version__
from openhqm.ingress.answers import problem
from openhqm.interfaces import IMessageQueue
from openhqm.runtime.http1_messages import Answer

METRICS = b"text/plain; version=0.0.4; charset=utf-8"


class Health:
    """``worker_trouble`` says why no work is done although it should be, or None."""

    def __init__(
        self,
        queue: IMessageQueue,
        queue_type: str,
        registry: CollectorRegistry | None,
        worker_trouble: Callable[[], str | None],
    ) -> None:
        self.draining = False  # set once the process has been told to stop
        self._queue = queue
        self._type = queue_type
        self._registry = registry
        self._worker_trouble = worker_trouble

    def overview(self) -> Answer:
        """200 with ``status`` ok, or 503 with what is wrong."""
        troubles = [trouble for trouble in (self._not_ready(), self._worker_trouble()) if trouble]
        document = {
            "status": "degraded" if troubles else "ok",
            "version": __version__,
            "queue": {"type": self._type, "durable": self._queue.capabilities.durable},
            "troubles": troubles,
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

    def metrics(self) -> Answer:
        """Everything in the registry, in Prometheus's text format."""
        if self._registry is None:
            return problem(404, "monitoring.metrics_enabled is false")
        return Answer(200, generate_latest(self._registry), METRICS)

    def _not_ready(self) -> str | None:
        return "stopping" if self.draining else self._queue.trouble


def _ok(status: str) -> Answer:
    return Answer(200, b'{"status":"%b"}' % status.encode())


class QueueCollector(Collector):
    """Depths and ages, read from the queues when they are asked for."""

    def __init__(self, queue: IMessageQueue, names: Iterable[str], clock: IReactorTime) -> None:
        self._queue = queue
        self._names = tuple(names)
        self._clock = clock

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The metrics without their values: the queue is not open yet when this is registered."""
        return (
            GaugeMetricFamily("openhqm_queue_depth", "Messages in a queue, by state.", labels=["queue", "state"]),
            GaugeMetricFamily(
                "openhqm_queue_oldest_age_seconds", "Age of the oldest message that is ready.", labels=["queue"]
            ),
        )

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The metrics now."""
        depth, age = self.describe()
        for name in self._names:
            found = self._queue.depth(name)
            for state in ("ready", "delayed", "in_flight"):
                depth.add_metric([name, state], getattr(found, state))
            age.add_metric([name], 0.0 if found.oldest is None else max(0.0, self._clock.seconds() - found.oldest))
        return depth, age
