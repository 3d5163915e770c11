# -*- test-case-name: tests.fleet.test_parts,tests.fleet.test_fleet -*-
"""One process as its parent sees it: its last report, its state, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.fleet.inheritance import FROM_PARENT, TO_PARENT
from openhqm.fleet.protocol import (
    FleetStatus,
    Leave,
    Pipe,
    PipeMessage,
    ProcessHealth,
    Report,
    Serve,
    StatusRequest,
    Stop,
    connect_pipe,
)
from openhqm.runtime.deferreds import deferred

SILENT_SECONDS = 5.0
"""A process that has not reported for so long counts as silent."""
PIPES_OPEN_SECONDS = 1.0
"""How long after the exit of a process its pipes are read, where a process that it has forked keeps them open."""
EXIT_GRACE_SECONDS = 10.0
"""How much longer than ``server.drain_seconds`` a process may take to end before it is killed."""


class Child(ProcessProtocol):
    """The protocol of a child process; times in seconds.

    ``on_status_request`` returns the answer to a request of the process. ``on_exit`` is called with this object once
    the process has ended and its last report was read.
    """

    transport: Any
    _closing_pipes: Any
    _log = Logger()

    def __init__(
        self,
        clock: Any,
        drain_seconds: float,
        on_status_request: Callable[[StatusRequest], FleetStatus],
        on_exit: Callable[[Child], object],
    ) -> None:
        self._clock = clock
        self._drain_seconds = drain_seconds
        self._on_status_request = on_status_request
        self._on_exit = on_exit
        self._pipe = Pipe(self._received)
        self._waiting: list[tuple[Callable[[], bool], Deferred[bool]]] = []
        self.pid = 0
        self.started_at = self._reported_at = clock.seconds()
        self.report: Report | None = None
        self.leaving = False
        """It was told to end, so its end is no reason to start another process."""
        self.exited = self._can_send = False
        self.exit_code: int | None = None
        self.exit_description = ""

    @property
    def state(self) -> str:
        """One of `STATES`."""
        if self.report is None or not (self.report.serving or self.leaving):
            return "starting"
        if self._clock.seconds() - self._reported_at > SILENT_SECONDS:
            return "silent"
        return "leaving" if self.leaving else "ready"

    @property
    def health(self) -> ProcessHealth:
        """The health that the process last reported. A process that has stopped reporting counts as stuck."""
        if self.report is None:
            return ProcessHealth(unavailable_reason="the process is starting")
        if self.state == "silent":
            seconds = round(self._clock.seconds() - self._reported_at)
            reason = f"the process has not reported for {seconds} seconds: most likely a handler blocks its reactor"
            return ProcessHealth(unavailable_reason=reason, stuck=reason)
        return self.report.health

    @property
    def uptime(self) -> float:
        """How many seconds the process has run."""
        return float(self._clock.seconds() - self.started_at)

    def wait_for_report(self, seconds: float) -> Deferred[bool]:
        """Fires with True when the process has sent a report, with False where it has not within ``seconds``."""
        return self._wait_until(lambda: self.report is not None, seconds)

    def wait_until_available(self, seconds: float) -> Deferred[bool]:
        """Fires with True when the process reports that it could accept requests, with False after ``seconds``."""
        return self._wait_until(
            lambda: self.report is not None and self.report.health.unavailable_reason is None, seconds
        )

    def serve(self, seconds: float) -> Deferred[bool]:
        """Tell the process to take connections and requests.

        Fires with True when the process reports that it does, with False after ``seconds``.
        """
        if not self.leaving:
            self._send(Serve())
        return self._wait_until(lambda: self.report is not None and self.report.serving, seconds)

    def wait_for_exit(self, seconds: float) -> Deferred[bool]:
        """Fires with True when the process has ended, with False where it has not within ``seconds``."""
        return self._wait_until(lambda: self.exited, seconds)

    def leave(self) -> Deferred[None]:
        """Tell the process that another one replaces it. Fires when it has ended."""
        return self._end_by(Leave())

    def stop(self) -> Deferred[None]:
        """Tell the process that the fleet stops. Fires when it has ended."""
        return self._end_by(Stop())

    def kill(self) -> None:
        """Send SIGKILL."""
        self.leaving = True
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    # twisted.internet.interfaces.IProcessProtocol

    def connectionMade(self) -> None:
        self.pid = self.transport.pid
        self._can_send = True
        connect_pipe(self._pipe, lambda data: self.transport.writeToChild(FROM_PARENT, data))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == TO_PARENT:
            self._pipe.dataReceived(data)

    def childConnectionLost(self, childFD: int) -> None:
        if childFD == FROM_PARENT:
            self._can_send = False

    def processExited(self, reason: Failure) -> None:
        # Twisted calls processEnded once the pipes are closed. A process that a handler has forked keeps them open.
        self._closing_pipes = self._clock.callLater(PIPES_OPEN_SECONDS, self._close_pipes, reason)

    def processEnded(self, reason: Failure) -> None:
        if self._closing_pipes.active():
            self._closing_pipes.cancel()
            self._ended(reason)

    def _close_pipes(self, reason: Failure) -> None:
        self._can_send = False
        for descriptor in (FROM_PARENT, TO_PARENT):
            self.transport.closeChildFD(descriptor)
        self._ended(reason)

    def _ended(self, reason: Failure) -> None:
        self.exited = True
        value: Any = reason.value
        self.exit_code, signal = value.exitCode, value.signal
        self.exit_description = f"by signal {signal}" if signal is not None else f"with {self.exit_code}"
        self._check_waiting()
        self._on_exit(self)

    @deferred
    async def _end_by(self, message: Leave | Stop) -> None:
        self.leaving = True
        self._send(message)
        patience = self._drain_seconds + EXIT_GRACE_SECONDS
        if not await self.wait_for_exit(patience):
            self._log.error(
                "process {pid} was told to end, has not ended within {seconds:g} s, and is killed",
                pid=self.pid,
                seconds=patience,
            )
            self.kill()
            await self.wait_for_exit(EXIT_GRACE_SECONDS)

    def _received(self, message: object) -> None:
        self._reported_at = self._clock.seconds()
        if isinstance(message, Report):
            self.report = message
            self._check_waiting()
        elif isinstance(message, StatusRequest):
            self._send(self._on_status_request(message))

    def _send(self, message: PipeMessage) -> None:
        if self._can_send:
            self._pipe.send(message)

    def _wait_until(self, reached: Callable[[], bool], seconds: float) -> Deferred[bool]:
        waiting: Deferred[bool] = Deferred()
        self._waiting.append((reached, waiting))
        late = self._clock.callLater(seconds, waiting.callback, False)
        waiting.addBoth(lambda result: (late.active() and late.cancel(), result)[1])
        self._check_waiting()
        return waiting

    def _check_waiting(self) -> None:
        for reached, waiting in list(self._waiting):
            if waiting.called:
                self._waiting.remove((reached, waiting))
            elif reached() or self.exited:
                self._waiting.remove((reached, waiting))
                waiting.callback(reached())
