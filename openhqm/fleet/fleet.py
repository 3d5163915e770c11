# -*- test-case-name: tests.fleet.test_fleet -*-
"""The parent of several processes: it holds their sockets, and rolls the processes over one by one.

It serves nothing and opens no queue. The sockets are never closed before the end: whoever connects while processes
come and go waits in the kernel for one that has time, and is refused by none.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from openhqm import __version__
from openhqm.config.model import Server
from openhqm.errors import Complaint, ConfigurationError
from openhqm.fleet.child import Child
from openhqm.fleet.inheritance import Source, bequest
from openhqm.fleet.supervisor import START_SECONDS, Place, Supervisor
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.listening import listen
from openhqm.runtime.signals import handle_stop, stop_reactor
from openhqm.runtime.starting import end_where_it_failed, end_with


class _Nobody(Factory):
    noisy = False


class Fleet(Service):
    """``server.workers`` processes, each started by ``command``. ``read`` reads the configuration anew."""

    name = "openhqm"
    _log = Logger()

    def __init__(
        self,
        source: Source,
        read: Callable[[], Source],
        reactor: Any,
        command: list[str],
    ) -> None:
        self._read = read
        self._reactor = reactor
        self._command = command
        self.ports: list[Any] = []
        self._roster = Supervisor(source, reactor, random.random, self._spawn)
        self._roster.places = [Place() for _ in range(source.settings.server.workers)]
        self._rolling = self._asked_to_roll = self._stopping = False

    def startService(self) -> None:
        """Bind the sockets, or end the process with one line that says why not; then the processes."""
        super().startService()
        end_where_it_failed(self._open())
        self._reactor.callWhenRunning(self._begin)

    @deferred
    async def _open(self) -> None:
        server = self._roster.source.settings.server
        if server.enabled:
            self.ports += await listen(self._reactor, _Nobody(), server.host, server.port, server.endpoints)
            for port in self.ports:
                port.stopReading()

    def stopService(self) -> Deferred[None]:
        """Fires when no process is left."""
        super().stopService()
        return self._stop()

    def _handle_signals(self) -> None:
        handle_stop(self._reactor, self._end_at_once)
        signal.signal(signal.SIGHUP, lambda number, frame: self._reactor.callFromThread(self.roll))

    def _end_at_once(self) -> None:
        for child in list(self._roster.living):
            child.kill()
        os._exit(1)

    def _spawn(self, child: Child, source: Source) -> None:
        with bequest([port.fileno() for port in self.ports], source.text) as (descriptors, variables):
            environment = {**os.environ, **variables}
            self._reactor.spawnProcess(child, sys.executable, self._command, environment, childFDs=descriptors)

    @deferred
    async def _begin(self) -> None:
        """The first process alone: what it cannot do, none can, and it is said once."""
        self._rolling = True
        self._handle_signals()
        first, *others = self._roster.places
        serves = self._roster.fill(first)
        child = first.child
        if not await serves:
            if not self._stopping:
                self._roster.close()
                self._log.error("the first process did not come up")
                end_with((child and child.code) or 1)
                stop_reactor(self._reactor)
            return
        await DeferredList([self._roster.fill(place) for place in others])
        if self._stopping:
            return
        self._log.info(
            "openhqm {version}: {count} processes are ready",
            version=__version__,
            count=sum(each.state == "ready" for each in self._roster.living),
            port=", ".join(str(port.getHost()) for port in self.ports) or "nowhere: these are workers",
        )
        self._rolling = False
        if self._asked_to_roll:
            self.roll()

    def roll(self) -> None:
        """Read the configuration anew, and put a new process in each place; once more where one is at it already."""
        self._asked_to_roll = True
        if not self._rolling:
            self._roll().addErrback(lambda failure: self._log.failure("rolling over broke down", failure))

    @deferred
    async def _roll(self) -> None:
        self._rolling = True
        try:
            while self._asked_to_roll and not self._stopping:
                self._asked_to_roll = False
                try:
                    source = self._read()
                    _check_unchanged(self._roster.source.settings.server, source.settings.server)
                except ConfigurationError as error:
                    for complaint in error.complaints:
                        self._log.error("{complaint}; nothing changes", complaint=str(complaint))
                else:
                    await self._roll_over(source)
        finally:
            self._rolling = False

    async def _roll_over(self, source: Source) -> None:
        roster, count = self._roster, source.settings.server.workers
        more = [Place() for _ in range(count - len(roster.places))]
        for place in [*roster.places[:count], *more]:
            try:
                successor = roster.new_child(source)
            except OSError as error:
                self._log.error("no process can be started: {error}", error=error)
                return
            if not (await successor.sound(START_SECONDS) and await successor.serve(START_SECONDS)):
                if not self._stopping:
                    self._give_up_on(successor)
                return
            roster.source = source
            before = roster.put(successor, place)
            if before is not None:
                await before.leave()
            if self._stopping:
                return
        surplus = [roster.remove(place) for place in roster.places[count:]]
        await DeferredList([child.leave() for child in surplus if child is not None])
        self._log.info("rolled over: {count} processes are new", count=count)

    def _give_up_on(self, successor: Child) -> None:
        why = f"it ended {successor.how}" if successor.over else successor.standing.unavailable_reason
        self._log.error(
            "process {pid} did not become ready, and takes nobody's place: {reason}", pid=successor.pid, reason=why
        )
        if not successor.over:
            successor.stop()

    @deferred
    async def _stop(self) -> None:
        self._stopping = True
        ended = self._roster.stop()
        for port in self.ports:
            await maybeDeferred(port.stopListening)
        await ended
        self._log.info("openhqm has stopped: no process is left")


def _check_unchanged(before: Server, after: Server) -> None:
    """`ConfigurationError` for what no new process can have otherwise: the sockets are those that the parent holds."""
    found = [
        Complaint(f"server.{name}", "is bound once: stop, and start anew")
        for name in ("enabled", "host", "port", "endpoints")
        if getattr(before, name) != getattr(after, name)
    ]
    if after.workers == 1:
        found.append(Complaint("server.workers", "1 has no parent to roll it over: stop, and start anew"))
    if found:
        raise ConfigurationError(found)
