# -*- test-case-name: tests.ingress.test_http -*-
"""The metrics that are read rather than counted: how much lies in the queues, asked for when somebody collects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from openhqm.errors import NotDurable
from openhqm.interfaces import IMessageQueue
from openhqm.messages import Depth
from openhqm.runtime.deferreds import deferred


class Metrics:
    """Everything that ``collect`` fires with, and the depths of the queues ``names``, which are the same for all."""

    def __init__(
        self,
        collect: Callable[[], Deferred[Iterable[Metric]]],
        queue: IMessageQueue,
        names: Iterable[str],
        clock: IReactorTime,
    ) -> None:
        self._collect = collect
        self._queue = queue
        self._names = tuple(names)
        self._clock = clock

    @deferred
    async def text(self) -> bytes:
        """In Prometheus's text format. The depths of a queue that cannot be asked now are left out.

        Fails with whatever ``collect`` fails with.
        """
        found: dict[str, Depth] = {}
        for name in self._names:
            try:
                found[name] = await self._queue.depth(name)
            except NotDurable:
                continue  # readiness says so; the counters are worth having all the same
        counted: Any = _Found((*await self._collect(), *self._depths(found)))
        return generate_latest(counted)

    def _depths(self, found: Mapping[str, Depth]) -> Iterable[Metric]:
        depth = GaugeMetricFamily("openhqm_queue_depth", "Messages in a queue, by state.", labels=["queue", "state"])
        age = GaugeMetricFamily(
            "openhqm_queue_oldest_age_seconds", "Age of the oldest message that is ready.", labels=["queue"]
        )
        for name, at in found.items():
            for state in ("ready", "delayed", "in_flight"):
                depth.add_metric([name, state], getattr(at, state))
            if at.oldest is not None:
                age.add_metric([name], max(0.0, self._clock.seconds() - at.oldest))
            elif self._queue.traits.tells_oldest:
                age.add_metric([name], 0.0)  # nothing is ready
        return depth, age


@attrs.frozen
class _Found(Collector):
    """Prometheus's client collects without waiting: these were asked for just before."""

    _metrics: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        """The metrics as they were found."""
        return self._metrics
