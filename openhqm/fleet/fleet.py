# -*- test-case-name: tests.fleet.test_fleet -*-
"""The parent of several processes: it holds the listening sockets, and replaces the processes one by one.

The parent accepts no connection and opens no queue. It closes the sockets last: a client that connects while processes
are replaced waits in the kernel's backlog until a process accepts the connection, and none is refused.
"""

from __future__ import annotations

import os
import random
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
from openhqm.fleet.inheritance import Source, spawn_arguments
from openhqm.fleet.supervisor import START_SECONDS, Slot, Supervisor
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.listening import listen
from openhqm.runtime.logs import decouple
from openhqm.runtime.signals import handle_reload, handle_stop, stop_reactor
from openhqm.runtime.starting import exit_if_failed, exit_with
from openhqm.runtime.systemd import Systemd


class _NoProtocol(Factory):
    """The factory of ports from which the parent never accepts a connection."""

    noisy = False


class Fleet(Service):
    """The parent as a service: ``server.workers`` processes, each started by ``command``.

    ``source`` is the configuration of the first processes; ``read`` reads it again at SIGHUP.
    """

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
        self._supervisor = Supervisor(source, reactor, random.random, self._spawn)
        self._supervisor.slots = [Slot() for _ in range(source.settings.server.workers)]
        self._rolling = self._roll_requested = self._stopping = False
        self._systemd = Systemd(os.environ, reactor)

    def startService(self) -> None:
        """Bind the sockets, and start the processes once the reactor runs.

        Where a socket cannot be bound, the parent ends with one line that gives the reason.
        """
        super().startService()
        decouple()
        exit_if_failed(self._open())
        self._reactor.callWhenRunning(self._begin)

    @deferred
    async def _open(self) -> None:
        server = self._supervisor.source.settings.server
        if server.enabled:
            self.ports += await listen(self._reactor, _NoProtocol(), server.host, server.port, server.endpoints)
            for port in self.ports:
                port.stopReading()

    def stopService(self) -> Deferred[None]:
        """Fires when all processes have ended."""
        super().stopService()
        return self._stop()

    def _handle_signals(self) -> None:
        handle_stop(self._reactor, self._kill_all)
        handle_reload(self._reactor, self.roll)

    def _kill_all(self) -> None:
        for child in list(self._supervisor.running):
            child.kill()
        os._exit(1)

    def _spawn(self, child: Child, source: Source) -> None:
        with spawn_arguments([port.fileno() for port in self.ports], source.text) as (descriptors, variables):
            environment = {**os.environ, **variables}
            self._reactor.spawnProcess(child, sys.executable, self._command, environment, childFDs=descriptors)

    @deferred
    async def _begin(self) -> None:
        """Start one process before the others: what keeps it from starting would keep all, and is logged once."""
        self._rolling = True
        self._handle_signals()
        first, *others = self._supervisor.slots
        serves = self._supervisor.fill(first)
        child = first.child
        if not await serves:
            if not self._stopping:
                self._supervisor.close()
                self._log.error("the first process did not become ready: the service stops")
                exit_with((child and child.exit_code) or 1)
                stop_reactor(self._reactor)
            return
        await DeferredList([self._supervisor.fill(slot) for slot in others])
        if self._stopping:
            return
        self._log.info(
            "openhqm {version}: {count} processes are ready",
            version=__version__,
            count=sum(each.state == "ready" for each in self._supervisor.running),
            port=", ".join(str(port.getHost()) for port in self.ports) or "none: these processes are workers",
        )
        self._systemd.ready()
        self._rolling = False
        if self._roll_requested:
            self.roll()

    def roll(self) -> None:
        """Read the configuration again, and replace the process in each slot.

        Where the processes are being replaced already, all are replaced once more after that.
        """
        self._roll_requested = True
        if not self._rolling:
            self._roll().addErrback(lambda failure: self._log.failure("rolling over broke down", failure))

    @deferred
    async def _roll(self) -> None:
        self._rolling = True
        self._systemd.reloading()
        try:
            while self._roll_requested and not self._stopping:
                self._roll_requested = False
                try:
                    source = self._read()
                    _check_unchanged(self._supervisor.source.settings.server, source.settings.server)
                except ConfigurationError as error:
                    for complaint in error.complaints:
                        self._log.error("{complaint}; the processes keep their configuration", complaint=str(complaint))
                else:
                    await self._roll_over(source)
        finally:
            self._rolling = False
            if not self._stopping:
                self._systemd.ready()

    async def _roll_over(self, source: Source) -> None:
        supervisor, count = self._supervisor, source.settings.server.workers
        more = [Slot() for _ in range(count - len(supervisor.slots))]
        for slot in [*supervisor.slots[:count], *more]:
            try:
                successor = supervisor.new_child(source)
            except OSError as error:
                self._log.error("a process cannot be started: {error}", error=error)
                return
            if not (await successor.wait_until_available(START_SECONDS) and await successor.serve(START_SECONDS)):
                if not self._stopping:
                    self._give_up_on(successor)
                return
            supervisor.source = source
            before = supervisor.put(successor, slot)
            if before is not None:
                await before.leave()
            if self._stopping:
                return
        surplus = [supervisor.remove(slot) for slot in supervisor.slots[count:]]
        await DeferredList([child.leave() for child in surplus if child is not None])
        self._log.info("rolled over: {count} processes are new", count=count)

    def _give_up_on(self, successor: Child) -> None:
        if successor.exited:
            reason = f"it ended {successor.exit_description}"
        else:
            reason = successor.health.unavailable_reason or "it did not begin to serve"
            successor.stop()
        self._log.error(
            "new process {pid} did not become ready, and replaces no other: {reason}",
            pid=successor.pid,
            reason=reason,
        )

    @deferred
    async def _stop(self) -> None:
        self._stopping = True
        self._systemd.stopping()
        ended = self._supervisor.stop()
        for port in self.ports:
            await maybeDeferred(port.stopListening)
        await ended
        self._systemd.stop()
        self._log.info("openhqm has stopped: all processes have ended")


def _check_unchanged(before: Server, after: Server) -> None:
    """`ConfigurationError` for keys that only a restart can change: new processes use the sockets of the parent."""
    found = [
        Complaint(f"server.{name}", "cannot change at SIGHUP, because the parent keeps its sockets: restart openhqm")
        for name in ("enabled", "host", "port", "endpoints")
        if getattr(before, name) != getattr(after, name)
    ]
    if after.workers == 1:
        found.append(
            Complaint("server.workers", "cannot change to 1 at SIGHUP: one process has no parent. Restart openhqm")
        )
    if found:
        raise ConfigurationError(found)
