# -*- test-case-name: tests.ingress.test_health -*-
"""Health for people, probes and load balancers: of this process, or of all that serve on the same port."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec
from twisted.internet.defer import Deferred, TimeoutError

from openhqm import __version__
from openhqm.fleet.protocol import Everybody, Process, Standing
from openhqm.http1.messages import Answer
from openhqm.ingress.answers import problem
from openhqm.ingress.queue_metrics import Metrics
from openhqm.interfaces import IMessageQueue
from openhqm.runtime.deferreds import deferred

METRICS = b"text/plain; version=0.0.4; charset=utf-8"
_NO_PARENT = "the parent process does not answer"


class Health:
    """``worker_trouble`` says why no work is done although it should be, or None; ``warnings`` what to know besides.

    ``ask`` fires with how all processes are, where there are others; `TimeoutError`.
    """

    def __init__(
        self,
        queue: IMessageQueue,
        queue_type: str,
        metrics: Metrics | None,
        worker_trouble: Callable[[], str | None],
        warnings: Callable[[], Sequence[str]],
        ask: Callable[[], Deferred[Everybody]] | None = None,
    ) -> None:
        self.draining = False  # set once the process has been told to stop
        self._queue = queue
        self._type = queue_type
        self._metrics = metrics
        self._worker_trouble = worker_trouble
        self._warnings = warnings
        self._ask = ask

    def standing(self) -> Standing:
        """How this process is by itself."""
        unavailable_reason = "stopping" if self.draining else self._queue.unavailable_reason
        return Standing(unavailable_reason, self._worker_trouble(), [*self._queue.warnings, *self._warnings()])

    @deferred
    async def overview(self) -> Answer:
        """200 with ``status`` ok, or 503 with what is wrong."""
        everybody = await self._everybody()
        serving = _serving(everybody.processes)
        troubles = _said(serving, lambda each: (each.unavailable_reason, each.stuck))
        warnings = _said(serving, lambda each: each.warnings)
        if everybody.missing:
            warnings.append(f"{everybody.missing} processes are missing: the log says how they ended")
        document = {
            "status": "degraded" if troubles else "ok",
            "version": __version__,
            "queue": {"type": self._type, "durable": self._queue.traits.durable},
            "processes": Counter(process.state for process in everybody.processes),
            "troubles": troubles,
            "warnings": warnings,
        }
        return Answer(503 if troubles else 200, msgspec.json.encode(document))

    @deferred
    async def live(self) -> Answer:
        """503 where only a new process would help."""
        stuck = _said((await self._everybody()).processes, lambda each: (each.stuck,))
        return problem(503, "; ".join(stuck)) if stuck else _ok("live")

    @deferred
    async def ready(self) -> Answer:
        """503 where no process could keep a 202, and while everything is stopping."""
        serving = _serving((await self._everybody()).processes)
        troubles = [process.standing.unavailable_reason for process in serving]
        return _ok("ready") if None in troubles else problem(503, next(filter(None, troubles), "no process serves"))

    @deferred
    async def metrics(self) -> Answer:
        """Everything that is counted, in Prometheus's text format."""
        if self._metrics is None:
            return problem(404, "monitoring.metrics_enabled is false")
        try:
            return Answer(200, await self._metrics.text(), METRICS)
        except TimeoutError:  # what this process alone has counted would look as if the others had never been
            return problem(503, _NO_PARENT)

    async def _everybody(self) -> Everybody:
        own = self.standing()
        if self._ask is not None:
            try:
                return await self._ask()
            except TimeoutError:
                own = Standing(own.unavailable_reason, own.stuck, [*own.warnings, _NO_PARENT])
        return Everybody(0, [Process(os.getpid(), "ready", own)], 0, None)


def _serving(processes: Sequence[Process]) -> Sequence[Process]:
    """Those that count: whoever comes or goes does not, as long as there are others."""
    return [process for process in processes if process.state in ("ready", "silent")] or processes


def _said(processes: Sequence[Process], words: Callable[[Standing], Iterable[str | None]]) -> list[str]:
    """What they say, each thing once; with who says it, where not all do."""
    found: dict[str, list[int]] = {}
    for process in processes:
        for word in dict.fromkeys(words(process.standing)):
            if word is not None:
                found.setdefault(word, []).append(process.pid)
    return [
        word if len(pids) == len(processes) else f"process {', '.join(map(str, pids))}: {word}"
        for word, pids in found.items()
    ]


def _ok(status: str) -> Answer:
    return Answer(200, b'{"status":"%b"}' % status.encode())
