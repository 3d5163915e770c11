# -*- test-case-name: tests.test_http -*-
"""The metrics that are read rather than counted: how much lies in the queues, asked for when somebody collects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IReactorTime

from openhqm.errors import NotDurable
from openhqm.interfaces import IMessageQueue
from openhqm.messages import Depth
from openhqm.runtime.deferreds import deferred


class Metrics:
    """Everything in ``registry``, and the depths of the queues ``names``."""

    def __init__(
        self, registry: CollectorRegistry, queue: IMessageQueue, names: Iterable[str], clock: IReactorTime
    ) -> None:
        self._registry = registry
        self._queue = queue
        self._names = tuple(names)
        self._depths = _Depths(clock, lambda: queue.capabilities.tells_oldest)
        registry.register(self._depths)

    @deferred
    async def text(self) -> bytes:
        """In Prometheus's text format. The depths of a queue that cannot be asked now are left out."""
        found: dict[str, Depth] = {}
        for name in self._names:
            try:
                found[name] = await self._queue.depth(name)
            except NotDurable:
                continue  # readiness says so; the counters are worth having all the same
        self._depths.found = found
        return generate_latest(self._registry)


class _Depths(Collector):
    """Prometheus's client collects without waiting: these were asked for just before."""

    def __init__(self, clock: IReactorTime, tells_oldest: Callable[[], bool]) -> None:
        self.found: Mapping[str, Depth] = {}
        self._clock = clock
        self._tells_oldest = tells_oldest

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The metrics as they were found."""
        depth = GaugeMetricFamily("openhqm_queue_depth", "Messages in a queue, by state.", labels=["queue", "state"])
        age = GaugeMetricFamily(
            "openhqm_queue_oldest_age_seconds", "Age of the oldest message that is ready.", labels=["queue"]
        )
        for name, found in self.found.items():
            for state in ("ready", "delayed", "in_flight"):
                depth.add_metric([name, state], getattr(found, state))
            if found.oldest is not None:
                age.add_metric([name], max(0.0, self._clock.seconds() - found.oldest))
            elif self._tells_oldest():
                age.add_metric([name], 0.0)  # nothing is ready
        return depth, age
