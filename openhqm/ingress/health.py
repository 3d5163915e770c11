# -*- test-case-name: tests.ingress.test_health -*-
"""The health routes and ``/metrics``: of this process, or of all processes on the same port."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec
from twisted.internet.defer import Deferred, TimeoutError

from openhqm import __version__
from openhqm.errors import NotDurable
from openhqm.fleet.protocol import FleetStatus, ProcessHealth, ProcessStatus
from openhqm.http1.messages import Answer
from openhqm.ingress.answers import problem
from openhqm.ingress.queue_metrics import Metrics
from openhqm.interfaces import IMessageQueue
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.queue.tenant_backlogs import TenantBacklogs, described
from openhqm.runtime.deferreds import deferred

METRICS = b"text/plain; version=0.0.4; charset=utf-8"
_STOPPING = "stopping"
_NO_PARENT = "the parent process does not answer"


class Health:
    """Answers the health routes and ``/metrics``.

    ``worker_reason`` returns why the workers take no requests although they should, or None. ``warnings`` returns what
    an operator should know although everything works. ``fleet_status``, where the process has a parent, fires with the
    status of all processes, or fails with `TimeoutError`. ``metrics`` is None where metrics are switched off.
    ``passes_through``: an application stands behind it, which callers reach whether or not the queue can be.
    ``tenants`` knows how much of each waits.
    """

    def __init__(
        self,
        queue: IMessageQueue,
        queue_type: str,
        metrics: Metrics | None,
        worker_reason: Callable[[], str | None],
        warnings: Callable[[], Sequence[str]],
        fleet_status: Callable[[], Deferred[FleetStatus]] | None = None,
        limits: Limits = NO_LIMITS,
        *,
        passes_through: bool = False,
        tenants: TenantBacklogs | None = None,
    ) -> None:
        self._tenants = tenants
        self.draining = False  # set once the process has been told to stop
        self._queue = queue
        self._type = queue_type
        self._limits = limits
        self._metrics = metrics
        self._worker_reason = worker_reason
        self._warnings = warnings
        self._fleet_status = fleet_status
        self._passes_through = passes_through

    def limit(self, limits: Limits) -> None:
        """Other limits hold from now on."""
        self._limits = limits

    def process_health(self) -> ProcessHealth:
        """The health of this process alone."""
        unavailable_reason = _STOPPING if self.draining else self._queue.unavailable_reason
        return ProcessHealth(unavailable_reason, self._worker_reason(), [*self._queue.warnings, *self._warnings()])

    @deferred
    async def overview(self) -> Answer:
        """The document of ``/health``: 200 with ``status`` ok, or 503 with ``degraded`` and the reasons."""
        status = await self._status()
        counted = _counted(status.processes)
        troubles = _collect(counted, lambda health: (health.unavailable_reason, health.stuck))
        warnings = _collect(counted, lambda health: health.warnings)
        if status.missing:
            warnings.append(f"{status.missing} processes are missing: the log says how they ended")
        document = {
            "status": "degraded" if troubles else "ok",
            "version": __version__,
            "queue": {"type": self._type, "durable": self._queue.traits.durable, **await self._load()},
            **await described(self._tenants),
            "processes": Counter(process.state for process in status.processes),
            "troubles": troubles,
            "warnings": warnings,
        }
        return Answer(503 if troubles else 200, msgspec.json.encode(document))

    @deferred
    async def live(self) -> Answer:
        """503 where only a restart of a process would help."""
        stuck = _collect((await self._status()).processes, lambda health: (health.stuck,))
        return problem(503, "; ".join(stuck)) if stuck else _ok("live")

    @deferred
    async def ready(self) -> Answer:
        """503 where no process can accept a request, and while the whole service stops.

        Before an application only the latter counts: without the queue, what goes straight to it still does.
        """
        counted = _counted((await self._status()).processes)
        reasons = [process.health.unavailable_reason for process in counted]
        if self._passes_through:
            reasons = [reason if reason == _STOPPING else None for reason in reasons]
        return _ok("ready") if None in reasons else problem(503, next(filter(None, reasons), "no process is running"))

    @deferred
    async def metrics(self) -> Answer:
        """All metrics in the text format of Prometheus."""
        if self._metrics is None:
            return problem(404, "there are no metrics: monitoring.metrics_enabled is false")
        try:
            return Answer(200, await self._metrics.text(), METRICS)
        except TimeoutError:  # the metrics of this process alone would read as if counters had gone backwards
            return problem(503, _NO_PARENT)

    async def _load(self) -> dict[str, object]:
        """How full the queue is, where it has limits, and can be asked."""
        try:
            load = await self._queue.load()
        except NotDurable:
            return {}
        if load is None:
            return {}
        limits = self._limits
        return {
            "requests": {"open": load.requests, "limit": limits.requests},
            "bytes": {"open": load.bytes, "limit": limits.bytes},
        }

    async def _status(self) -> FleetStatus:
        own = self.process_health()
        if self._fleet_status is not None:
            try:
                return await self._fleet_status()
            except TimeoutError:
                own = ProcessHealth(own.unavailable_reason, own.stuck, [*own.warnings, _NO_PARENT])
        return FleetStatus(0, [ProcessStatus(os.getpid(), "ready", own)], 0, None)


def _counted(processes: Sequence[ProcessStatus]) -> Sequence[ProcessStatus]:
    """The processes whose health counts: those that start or leave count only where there are no others."""
    return [process for process in processes if process.state in ("ready", "silent")] or processes


def _collect(processes: Sequence[ProcessStatus], texts: Callable[[ProcessHealth], Iterable[str | None]]) -> list[str]:
    """Each text of ``processes`` once. One that not all processes have begins with the pids of those that have it."""
    found: dict[str, list[int]] = {}
    for process in processes:
        for text in dict.fromkeys(texts(process.health)):
            if text is not None:
                found.setdefault(text, []).append(process.pid)
    return [
        text if len(pids) == len(processes) else f"process {', '.join(map(str, pids))}: {text}"
        for text, pids in found.items()
    ]


def _ok(status: str) -> Answer:
    return Answer(200, b'{"status":"%b"}' % status.encode())
