# -*- test-case-name: tests.test_service -*-
"""The assembly: it builds a process from `Settings`, starts it, and stops it in order. It knows all other modules."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable
from functools import partial
from random import random
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.announcing import Announcing
from openhqm.applied import reloading
from openhqm.backends import PRODUCTS, look_at_required, make_backend, make_foreign_brokers
from openhqm.bridges.bridges import Bridges
from openhqm.bridges.reading import never_away
from openhqm.check_report import report
from openhqm.config.handler_rules import FIRST_LOOK
from openhqm.config.model import Settings
from openhqm.config.queue_rules import is_shared
from openhqm.config.tenants import places_of
from openhqm.delivery.ending_streams import EndingStreams
from openhqm.delivery.long_polling import LongPolls
from openhqm.delivery.streams import EventStreams
from openhqm.draining import DrainLog, counted
from openhqm.errors import Complaint, ConfigurationError, OpenHQMError
from openhqm.fleet.fleet import Fleet
from openhqm.fleet.inheritance import Inheritance
from openhqm.fleet.metric_families import snapshot, to_prometheus
from openhqm.fleet.parent_connection import ParentConnection
from openhqm.fleet.protocol import Report
from openhqm.http1.send_budget import SendBudget
from openhqm.ingress.access_log import note
from openhqm.ingress.admin import AdminListener, scaled_queues
from openhqm.ingress.authentication import make_authentication
from openhqm.ingress.dead_letters import DeadLetters
from openhqm.ingress.door import Door
from openhqm.ingress.health import Health
from openhqm.ingress.metrics import DoorMetrics, EndingStreamMetrics
from openhqm.ingress.process_metrics import register_process_metrics
from openhqm.ingress.queue_metrics import Metrics
from openhqm.ingress.sidecar import make_sidecar
from openhqm.ingress.site import make_site
from openhqm.ingress.submission import check_submission, read_submission
from openhqm.options import OpenHQMOptions
from openhqm.policy.addressing import Addressing
from openhqm.queue.orphans import Orphans
from openhqm.queue.shedding import Shedding, count_shed
from openhqm.queue.tenant_backlogs import make_tenant_backlogs
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.ending import end_late, end_within
from openhqm.runtime.forks import end_forks_at
from openhqm.runtime.listening import stop_listening
from openhqm.runtime.logs import decouple, end_at_once, tell_repeats, warnings
from openhqm.runtime.preparing import prepare
from openhqm.runtime.printing import print_lines
from openhqm.runtime.signals import handle_reload, handle_stop, stop_reactor
from openhqm.runtime.starting import exit_if_failed, report_failure, run_to_its_end
from openhqm.runtime.steady_time import ahead_of, never_ahead
from openhqm.runtime.threads import SerialThread
from openhqm.runtime.watching import hang_up_at_change
from openhqm.sockets import Sockets
from openhqm.workers.pool import WorkerPool

FLUSH_SECONDS = 0.2
TELL_SECONDS = 10.0
EXIT_SECONDS = 1.0
"""How long the process may take to end once everything has stopped."""
LAST_REQUEST_SECONDS = 5.0
"""How long an idle connection stays open for one more request where another process goes on with it."""


def makeService(options: OpenHQMOptions) -> Service:
    """Make the service that ``twistd openhqm`` runs: this process, or the parent of several.

    Where it cannot run, the process ends with one line for each reason. With ``--check`` it ends after the check.
    """
    from twisted.internet import reactor

    # Imported objects are never garbage. A request leaves few cycles, so the collector may run less often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    settings = options.source.settings
    if options.unconfigured and not options["check"]:
        Logger().warn(FIRST_LOOK)  # twistd begins to write the log after this: it is the first line
    prepare(reactor)
    if options["watch"] is not None and options.inheritance is None:
        hang_up_at_change(options["watch"], reactor)
    try:
        if settings.server.workers > 1 and options.inheritance is None and not options["check"]:
            return Fleet(options.source, options.read_again, reactor, [sys.executable, *sys.orig_argv[1:]])
        service = OpenHQM(settings, reactor, options.inheritance, lambda: options.read_again().settings)
        if options["check"]:
            run_to_its_end(reactor, lambda: check(service))
            raise SystemExit(0)
    except OpenHQMError as error:
        raise SystemExit(report_failure(Failure(error))) from None
    return service


@deferred
async def check(service: OpenHQM) -> None:
    """Connect to the backend, and print what it can and cannot promise. `CannotStart` where it cannot be used."""
    try:
        await service.backend.check()
        await look_at_required(service.settings, service.backend)
        await service.orphans.look()
        try:
            warnings = (*service.orphans.warnings, *await service.bridges.check())
            print_lines(report(service.settings, service.backend, warnings), sys.stdout)
        finally:  # a client of Kafka that has not begun to connect never says that it is closed
            await service.bridges.disconnect()
    finally:
        await service.backend.stop()
        service.commits.stop()


class OpenHQM(Service):
    """One process: doors, workers and backend. The constructor does no I/O, except that it imports the handlers.

    ``inheritance``: what the parent passed on, where there is one. Then the process serves when the parent says so.
    Where there is none, SIGHUP has it ``read`` the configuration again.
    """

    name = "openhqm"
    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        inheritance: Inheritance | None = None,
        read: Callable[[], Settings] | None = None,
    ) -> None:
        self.settings = settings
        self._inheritance = inheritance
        self._parent = self._connect_to_parent(reactor) if inheritance is not None else None
        self._serving = self._leaving = False
        self._reactor = reactor
        self.registry = CollectorRegistry()
        self.commits = SerialThread(reactor, "openhqm-commit")
        self.backend = make_backend(settings, reactor, self.commits.run)
        self.ports: list[Any] = []
        self._telling = LoopingCall(tell_repeats)
        self._telling.clock = reactor
        queue, store = self.backend.queue, self.backend.store
        self._announcing = Announcing(settings, queue, self.ports, os.environ, reactor)
        addressing = settings.addressing()
        brokers, works = make_foreign_brokers(settings, reactor), settings.worker.enabled
        made = settings, addressing, queue, reactor, self.registry, brokers, store.completion_token
        pool = self._pool = WorkerPool(*made) if works else None
        rules, is_away = (read_submission, check_submission), pool.is_away if pool is not None else never_away
        requests, limits = settings.queue.request_queue, settings.queue.limits.limits
        shedding = Shedding(queue, requests, reactor, limits, count_shed(self.registry))
        backlogs = make_tenant_backlogs(settings, queue, shedding, reactor, lambda: self._door.addressing)
        admission = backlogs or shedding
        self.bridges = Bridges(
            settings, PRODUCTS, brokers, queue, store, addressing, rules, reactor, self.registry, is_away, admission
        )
        door_metrics = DoorMetrics(self.registry, addressing.shares)
        self._waiting = LongPolls(store, reactor)
        ahead = ahead_of(reactor) if self.backend.own_time else never_ahead
        places = places_of(settings.tenants)
        self._streams = EventStreams(store, reactor, door_metrics.open_streams.set, ahead, places=places.streams)
        log, others = self.backend.endings, (EndingStreamMetrics(self.registry), random, ahead, places.streams)
        self._ending_streams = EndingStreams(log, store, reactor, *others) if log is not None else None
        send_budget = SendBudget(settings.server.max_unsent_bytes)
        self._door = Door(
            queue,
            store,
            self._waiting,
            reactor,
            door_metrics,
            longest_wait=settings.server.max_wait_seconds,
            addressing=addressing,
            ahead=ahead,
            has_room=send_budget.has_room,
            places=places,
            admission=admission,
        )
        queues = self._queues(settings, addressing)
        self._metrics = Metrics(self._collect, queue, (*queues, settings.queue.dead_letter_queue), reactor)
        self.orphans = Orphans(queue, requests, queues, reactor, None if pool is None else pool.adopt)
        self._health = Health(
            queue,
            settings.queue.type,
            self._metrics if settings.monitoring.metrics_enabled else None,
            lambda: self._pool.unavailable_reason if self._pool is not None else None,
            lambda: (
                *(*self.orphans.warnings, *self.bridges.warnings, *shedding.warnings, *warnings()),
                *(pool.warnings if pool is not None else ()),
                *(*self._authentication.warnings(), *self._limits.warnings),
            ),
            None if self._parent is None else partial(self._parent.fleet_status, False),
            limits,
            passes_through=settings.proxy.sidecar.enabled,
            tenants=backlogs,
        )
        self._own_paths = settings.own_paths()
        letters = DeadLetters(queue, reactor, lambda: self._door.closed, ahead, self.orphans.is_worked)
        shown = letters if settings.admin.enabled else None
        self._authentication = make_authentication(settings, reactor, self.registry)
        sidecar = self._sidecar = make_sidecar(settings, reactor, self._door, self._own_paths, self.registry)
        access_log = note if settings.monitoring.access_log else None
        about = settings, reactor, self._door, self._streams, self._ending_streams, self._health, shown
        self._site, self._web_sockets, self._limits = make_site(
            *about, self._authentication, sidecar, door_metrics, send_budget, access_log, self.backend.count_taken
        )
        self._sockets = Sockets(settings.server, self._site, reactor)
        scaled = lambda: scaled_queues(self.settings, self._door.addressing, shares=queue.traits.tells_shares)  # noqa: E731
        self._admin = AdminListener(settings.admin, reactor, self._health, queue, scaled)
        self._drain_log = DrainLog(reactor, lambda: 0 if pool is None else pool.in_progress, lambda: self._site.serving)
        register_process_metrics(self.registry, self._site, store, self.backend.on_redelivered, lambda: self.settings)
        limit = () if self.backend.limit is None else (self.backend.limit, self._health.limit, shedding.limit)
        code = () if pool is None else (pool.prepare_code,)
        self._reloading = reloading(settings, read or (lambda: settings), self.prepare, limit, code)

    def _queues(self, settings: Settings, addressing: Addressing) -> list[str]:
        """The names of the queues that need workers, as far as the backend tells them apart."""
        shares = self.backend.queue.traits.tells_shares
        return addressing.queues(settings.queue.request_queue, shares=shares)

    def prepare(self, settings: Settings) -> Callable[[], None]:
        """Prepare to run with other ``settings``, and return the function that changes over, which waits for nothing.

        Only what `openhqm.applied.ASSEMBLED` names may differ. `ConfigurationError` where they cannot be used.
        """
        addressing = settings.addressing()
        refusal = self.backend.channels(addressing).refusal if self.backend.channels is not None else None
        if refusal is not None:
            raise ConfigurationError([Complaint("proxy.endpoints", refusal)])
        exchange = self._pool.prepare(settings, addressing) if self._pool is not None else None

        def change() -> None:
            self.settings = settings
            queues = self._queues(settings, addressing)
            self._door.addressing = addressing
            if exchange is not None:
                exchange()
            self.bridges.exchange(addressing)
            self.orphans.exchange(queues)
            self._metrics.names = (*queues, settings.queue.dead_letter_queue)

        return change

    def _reload(self) -> None:
        if self._health.draining:
            self._log.info("the process is stopping, and does not read the configuration again")
        else:
            self._reloading.reload()

    def _connect_to_parent(self, reactor: Any) -> ParentConnection:
        return ParentConnection(
            reactor, self._report, serve=self._serve, leave=self._leave, stop=lambda: stop_reactor(reactor)
        )

    @deferred
    async def _collect(self) -> Iterable[Metric]:
        """The metrics of this process, or of all processes. `TimeoutError` where the parent does not answer."""
        if self._parent is None:
            return self.registry.collect()
        return to_prometheus((await self._parent.fleet_status(True)).metrics or ())

    def startService(self) -> None:
        """Start the backend and then the doors and workers. Where that fails, end the process with one line."""
        super().startService()
        decouple()
        end_forks_at(self._reactor)
        exit_if_failed(self._start())
        self._telling.start(TELL_SECONDS, now=False)
        self._reactor.callWhenRunning(self._handle_signals)

    @deferred
    async def _start(self) -> None:
        await self.backend.start()
        await look_at_required(self.settings, self.backend)
        self.orphans.start()
        self._authentication.start()
        if self._parent is None:
            await self._serve()
            return
        # Connections and requests are taken when the parent has received the first report, and says so.
        self._parent.connect(self._reactor)
        await self.backend.when_probed()
        self._parent.start_reporting()

    @deferred
    async def _serve(self) -> None:
        if self._health.draining:  # the parent has told it to end first
            return
        await self._admin.start()
        if self.settings.server.enabled:
            await self._listen()
        self._serving = True
        if self._pool is not None:
            self._pool.start()
        self.bridges.start()
        self.backend.when_probed().addBoth(self._announcing.serving)

    async def _listen(self) -> None:
        self.backend.when_probed().addBoth(lambda _: self._limits.start())
        sockets = None if self._inheritance is None else self._inheritance.sockets
        self.ports += await self._sockets.open(sockets)

    def _report(self) -> Report:
        return Report(self._health.process_health(), snapshot(self.registry), self._serving)

    def _leave(self) -> None:
        """Stop because another process has replaced this one."""
        self._leaving = True
        stop_reactor(self._reactor)

    def stopService(self) -> Deferred[None]:
        """Stop the doors first and the backend last. Fires when everything has stopped; a failure is logged."""
        super().stopService()
        # Twisted would not log it.
        return self._stop().addErrback(lambda failure: self._log.failure("the process did not stop in order", failure))

    @deferred
    async def _stop(self) -> None:
        drain = self.settings.server.drain_seconds
        due = self._reactor.seconds() + drain
        self._health.draining = True
        self._announcing.stopping()
        # Where others go on with what it accepts, it serves its connections to their end.
        goes_on = self._leaving or is_shared(self.settings, PRODUCTS)
        self._door.closed = not goes_on
        self._site.disable_keep_alive()
        self._drain_log.start(drain)
        for port in self.ports:
            await stop_listening(self._reactor, port)
        if self._serving:
            await self.bridges.stop()
            if self._pool is not None:
                await self._pool.stop(drain)
        self._web_sockets.stop()
        self._streams.stop()
        if self._ending_streams is not None:
            self._ending_streams.stop()
        if self._pool is None:  # other processes work on what callers wait for
            await self._waiting.wait_until_none(due - self._reactor.seconds())
        self._waiting.stop()
        # A connection that was just accepted has not been read from yet.
        await self._site.wait_until_none_idle(min(LAST_REQUEST_SECONDS if goes_on else FLUSH_SECONDS, drain))
        self._site.drain()
        await self._site.wait_until_closed(max(FLUSH_SECONDS, due - self._reactor.seconds()))
        self._drain_log.stop()
        if self._site.serving:
            self._log.warn(
                "{connections} still being served after {seconds:g} s (server.drain_seconds), and cut",
                connections=counted(self._site.serving, "connection"),
                seconds=drain,
            )
        self._door.closed = True
        self._site.stop()
        self._authentication.stop()
        self._limits.stop()
        if self._sidecar is not None:
            self._sidecar.stop()
        self.orphans.stop()
        await self._admin.stop()
        await self.bridges.disconnect()
        await self.backend.stop()
        self.commits.stop()
        if self._pool is not None and self._serving:
            self._pool.join()
        if self._parent is not None:
            await self._parent.close()
        self._announcing.stop()
        if self._telling.running:
            self._telling.stop()
        tell_repeats(at_once=True)
        end_within(EXIT_SECONDS)
        self._log.info("openhqm has stopped")

    def _handle_signals(self) -> None:
        """A second signal ends the process at once; its requests are delivered again.

        With a parent, only that ends it.
        """
        if self._parent is None:
            late = partial(end_late, self.settings.server.drain_seconds)
            handle_stop(self._reactor, lambda: end_at_once(1), late)
            handle_reload(self._reactor, lambda: self._announcing.reload(self._reload))
        else:
            handle_stop(self._reactor, lambda: None)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
