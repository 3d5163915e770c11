# -*- test-case-name: tests.fleet.test_parts,tests.fleet.test_fleet -*-
"""A process's connection to its parent: it reports its health and metrics, and asks for those of the whole fleet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.interfaces import IPushProducer
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from openhqm.fleet.inheritance import FROM_PARENT, TO_PARENT
from openhqm.fleet.protocol import FleetStatus, Leave, Pipe, Report, Serve, StatusRequest, Stop
from openhqm.runtime.deferreds import deferred

REPORT_SECONDS = 1.0
ANSWER_SECONDS = 1.0


@implementer(IPushProducer)
class ParentConnection:
    """Sends what ``report`` returns every second, and calls ``serve``, ``leave`` or ``stop`` as the parent says.

    ``serve``: take connections and requests; its Deferred fires when this process does. ``leave``: another process has
    replaced this one. ``stop``: the fleet stops. It is called also where the parent has ended, because no other process
    would end this one.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        report: Callable[[], Report],
        *,
        serve: Callable[[], Deferred[None]],
        leave: Callable[[], object],
        stop: Callable[[], object],
    ) -> None:
        self._clock = clock
        self._report = report
        self._serve = serve
        self._leave = leave
        self._stop = stop
        self._requests: dict[int, Deferred[FleetStatus]] = {}
        self._last_number = 0
        self._transport: Any = None
        self._lost: Deferred[None] = Deferred()
        self._pipe_is_full = False  # the parent does not read just now
        self.pipe = Pipe(self._received, self._connection_lost)
        self._reporting = LoopingCall(self._send_report)
        self._reporting.clock = clock

    def connect(self, reactor: Any) -> None:
        """Open the two pipes that the parent has passed on."""
        stdio: Any = StandardIO  # one of two classes, by platform, which mypy cannot tell apart
        self._transport = stdio(self.pipe, FROM_PARENT, TO_PARENT, reactor)
        self._transport.registerProducer(self, True)

    def start_reporting(self) -> None:
        """Send a report now and every second. The parent takes the first one as the end of the start."""
        self._reporting.start(REPORT_SECONDS)

    def fleet_status(self, with_metrics: bool) -> Deferred[FleetStatus]:
        """Fires with the status of all processes, or fails with `TimeoutError` after `ANSWER_SECONDS`."""
        if self._pipe_is_full or self._lost.called:
            return fail(TimeoutError(0.0, "the parent process does not read its pipe"))
        self._send_report()  # so that the answer covers what this process knows now
        self._last_number += 1
        number = self._last_number
        answer: Deferred[FleetStatus] = Deferred()
        self._requests[number] = answer
        self.pipe.send(StatusRequest(number, with_metrics))
        answer.addTimeout(ANSWER_SECONDS, self._clock)
        answer.addBoth(lambda result: (self._requests.pop(number, None), result)[1])
        return answer

    @deferred
    async def close(self) -> None:
        """Send the last report and close the pipes. Fires when they are closed, or after `ANSWER_SECONDS`."""
        if not self._reporting.running or self._lost.called:
            return
        self._send_report()
        self._reporting.stop()
        self._lost.addTimeout(ANSWER_SECONDS, self._clock)
        self._transport.unregisterProducer()
        self._transport.loseConnection()
        try:
            await self._lost
        except TimeoutError:
            return  # the parent does not read; it notices the end of this process all the same

    def _send_report(self) -> None:
        if self._reporting.running and not self._pipe_is_full and not self._lost.called:
            self.pipe.send(self._report())

    def _received(self, message: object) -> None:
        if isinstance(message, FleetStatus):
            if (request := self._requests.get(message.number)) is not None and not request.called:
                request.callback(message)
        elif isinstance(message, Serve):
            serving = self._serve().addCallback(lambda _: self._send_report())
            serving.addErrback(lambda failure: self._log.failure("this process cannot serve", failure))
        elif isinstance(message, Leave):
            self._leave()
        elif isinstance(message, Stop):
            self._stop()

    def pauseProducing(self) -> None:
        """The pipe is full. Reports are left out until it is not: each one replaces the one before."""
        self._pipe_is_full = True

    def resumeProducing(self) -> None:
        """The pipe has room again."""
        self._pipe_is_full = False

    def stopProducing(self) -> None:
        """The pipe is closed, which `_connection_lost` handles."""

    def _connection_lost(self) -> None:
        if not self._lost.called:
            self._lost.callback(None)
        self._stop()
