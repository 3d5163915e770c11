# -*- test-case-name: tests.ingress.test_http -*-
"""The metrics of a scrape: the depths of the queues, which are asked for, and everything that was counted."""

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
from openhqm.messages import Depth, Load
from openhqm.runtime.deferreds import deferred


class Metrics:
    """The metrics that ``collect`` fires with, and the depths of the queues ``names``, which all processes share."""

    def __init__(
        self,
        collect: Callable[[], Deferred[Iterable[Metric]]],
        queue: IMessageQueue,
        names: Iterable[str],
        clock: IReactorTime,
    ) -> None:
        self._collect = collect
        self._queue = queue
        self.names = tuple(names)
        self._clock = clock

    @deferred
    async def text(self) -> bytes:
        """Fires with the metrics in Prometheus's text format. A queue that cannot be asked now is left out.

        Fails with the error of ``collect``.
        """
        found: dict[str, Depth] = {}
        for name in self.names:
            try:
                found[name] = await self._queue.depth(name)
            except NotDurable:
                continue  # /health/ready gives the reason, and the other metrics are served
        try:
            load = await self._queue.load()
        except NotDurable:
            load = None
        counted: Any = _Collected((*await self._collect(), *self._depths(found), *_load(load)))
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


def _load(load: Load | None) -> Iterable[Metric]:
    if load is None:
        return ()
    requests = GaugeMetricFamily("openhqm_requests_open", "Requests that have not ended, where they are limited.")
    size = GaugeMetricFamily("openhqm_request_bytes_open", "Bytes of requests that have not ended, where limited.")
    requests.add_metric([], load.requests)
    size.add_metric([], load.bytes)
    return requests, size


@attrs.frozen
class _Collected(Collector):
    """A collector of metrics that were collected before, because the Prometheus client cannot wait for them."""

    _metrics: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        """The metrics."""
        return self._metrics
