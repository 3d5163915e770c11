# -*- test-case-name: tests.workers.test_pool,tests.workers.test_exchange -*-
"""The worker pool: a consumer for each queue, with the handler or the target of that queue's requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import attrs
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.config.model import Settings
from openhqm.config.tenants import shares_of
from openhqm.errors import Complaint, ConfigurationError
from openhqm.interfaces import IForeignBroker, IMessageQueue
from openhqm.policy.addressing import Addressing
from openhqm.policy.breaker import State
from openhqm.policy.fair_shares import Name, Share
from openhqm.policy.queue_names import BACKLOG, MOST_WORKED_QUEUES, queue_name, without_share
from openhqm.runtime.deferreds import deferred
from openhqm.workers.attempt import AttemptContext
from openhqm.workers.consumer import Consumer
from openhqm.workers.contexts import ContextMaker, Contexts, slots_of
from openhqm.workers.executors import Executors
from openhqm.workers.gate import Gate
from openhqm.workers.handlers import TokenOf, no_token
from openhqm.workers.loading import about_processes, handlers_in_processes
from openhqm.workers.metrics import WorkerMetrics
from openhqm.workers.replies import MOST_RESULT_BYTES


@attrs.frozen(eq=False)
class _Lane:
    """How one queue is worked on: by ``count`` attempts at once, and those of tenants by ``shares``."""

    context: AttemptContext
    count: int
    in_order: bool
    shares: Mapping[Name, Share]


class WorkerPool:
    """All consumers of this process.

    The constructor imports the handlers and reads the certificates; `ConfigurationError` names each one that fails.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        addressing: Addressing,
        queue: IMessageQueue,
        reactor: Any,
        registry: CollectorRegistry,
        brokers: Mapping[str, IForeignBroker] = MappingProxyType({}),
        token_of: TokenOf = no_token,
    ) -> None:
        self._queue = queue
        self._reactor = reactor
        self._executors = Executors(reactor, settings.worker.count, MOST_RESULT_BYTES)
        self._maker = ContextMaker(
            reactor, WorkerMetrics(registry, addressing.shares), self._executors, brokers, token_of
        )
        self._running = False
        self._known: set[str] = set()
        self._retired: set[Consumer] = set()
        self._consumers: dict[str, Consumer] = {}
        self.gates: dict[str, Gate] = {}
        self._contexts = self._maker.make(settings, addressing.routes)
        self._shared = addressing.shared
        self._exchange(self._contexts, _lanes(settings, addressing, self._contexts))
        registry.register(BreakerCollector(self.gates))

    @property
    def queues(self) -> list[str]:
        """The names of the queues that have a consumer."""
        return list(self._consumers)

    @property
    def in_progress(self) -> int:
        """How many requests are worked on."""
        return sum(consumer.in_progress for consumer in (*self._consumers.values(), *self._retired))

    @property
    def unavailable_reason(self) -> str | None:
        """The first reason for which a consumer takes no requests although it should, or None."""
        return next((reason for each in self._consumers.values() if (reason := each.unavailable_reason)), None)

    @property
    def warnings(self) -> list[str]:
        """Which endpoints' requests are held by their gates and breakers, and why."""
        return [warning for gate in self.gates.values() for warning in gate.warnings]

    def adopt(self, queue: str) -> None:
        """Work on a queue beside one that is worked on: that of a tenant whose share another configuration has."""
        beside, tenant = without_share(queue)
        consumer = self._consumers.get(beside)
        if consumer is not None and tenant is not None:
            consumer.adopt(tenant)

    def is_away(self, endpoint: str | None) -> bool:
        """Whether the target of requests for ``endpoint``, as submissions name it, is away now."""
        contexts, shared = self._contexts, self._shared
        gate = contexts.of(shared if endpoint is None else endpoint).gate
        return gate is not None and gate.state is not State.CLOSED

    def start(self) -> None:
        """Begin to receive requests."""
        self._running = True
        self._executors.start()
        for consumer in self._consumers.values():
            consumer.start()

    def prepare(self, settings: Settings, addressing: Addressing) -> Callable[[], None]:
        """Prepare to work under other settings, and return the function that changes over to them.

        What requests share with those of before (``worker.count``, partitions, leases) has to be
        as it was. `ConfigurationError` names each handler and certificate that cannot be used.

        Attempts whose handlers were called go on as they have begun; see `Consumer.exchange`. A queue that has no
        consumer any more keeps what waits in it.
        """
        contexts = self._maker.make(settings, addressing.routes, self._contexts)
        lanes = _lanes(settings, addressing, contexts)
        known = len(self._known | set(lanes))
        if known > MOST_WORKED_QUEUES:
            reason = f"with the queues of endpoints that were removed since the start, {known} queues are known, and "
            reason += f"{MOST_WORKED_QUEUES} can be: restart openhqm"
            raise ConfigurationError([Complaint("proxy.endpoints", reason)])
        shared = addressing.shared

        def exchange() -> None:
            self._shared = shared
            self._exchange(contexts, lanes)

        return exchange

    def prepare_code(self, settings: Settings) -> Callable[[], None]:
        """Prepare to run the handlers of processes as their files are now, and return the function that begins it.

        `ConfigurationError` names each that cannot be imported. Modules that this process has imported stay: code that
        runs refers to them.
        """
        handlers = handlers_in_processes(settings.worker)
        complaints = about_processes(handlers)
        if complaints:
            raise ConfigurationError(complaints)
        return self._executors.renew_processes

    def _exchange(self, contexts: Contexts, lanes: dict[str, _Lane]) -> None:
        before, self._contexts = self._contexts, contexts
        contexts.give_probes()
        for name in [name for name in self._consumers if name not in lanes]:
            self._retire(self._consumers.pop(name))
        for name, lane in lanes.items():
            if name in self._consumers:
                self._consumers[name].exchange(lane.context, lane.count, lane.shares)
            else:
                self._consumers[name] = self._consumer(contexts.settings, name, lane)
        self._known.update(lanes)
        self.gates.clear()
        self.gates.update({name: parts.gate for name, parts in contexts.parts.items()})
        self._maker.close_replaced(before, contexts)

    def _consumer(self, settings: Settings, name: str, lane: _Lane) -> Consumer:
        consumer = Consumer(
            self._queue,
            name,
            lane.context,
            self._reactor,
            count=lane.count,
            batch=settings.worker.batch_size,
            in_order=lane.in_order,
            lease=settings.queue.lease_seconds,
            shares=lane.shares,
        )
        if self._running:
            consumer.start()
        return consumer

    def _retire(self, consumer: Consumer) -> None:
        self._retired.add(consumer)

        def retired(result: Failure | None) -> None:
            self._retired.discard(consumer)
            if result is not None:
                self._log.failure("stopping a consumer broke down", result)

        consumer.retire().addBoth(retired)

    @deferred
    async def stop(self, seconds: float) -> None:
        """Stop receiving, wait up to ``seconds`` for the attempts in progress, and release the other deliveries.

        Fires when the consumers have stopped and the connections to the targets are closed.
        """
        self._running = False
        consumers = [*self._consumers.values(), *self._retired]
        await self._wait_for_all("stopping a consumer", [consumer.stop(seconds) for consumer in consumers])
        await self._wait_for_all("ending what serves the handlers", [*self._maker.close(), self._executors.close()])

    async def _wait_for_all(self, what: str, steps: Iterable[Deferred[None]]) -> None:
        """Wait for all ``steps``. Each failure is logged."""
        for done, failure in await DeferredList(steps, consumeErrors=True):
            if not done:
                self._log.failure("{what} broke down", failure, what=what)

    def join(self) -> None:
        """Stop the threads of the handlers."""
        self._executors.stop()


def _lanes(settings: Settings, addressing: Addressing, contexts: Contexts) -> dict[str, _Lane]:
    """How each queue is worked on, by its name."""
    shares = shares_of(settings.tenants)
    return {
        queue_name(settings.queue.request_queue, in_name, partition): _Lane(
            contexts.of(endpoint),
            slots_of(settings, endpoint) if partition in (None, BACKLOG) else 1,
            partition not in (None, BACKLOG),
            shares if partition is None else {},
        )
        for in_name, endpoint, partition in addressing.lanes()
    }


class BreakerCollector(Collector):
    """The state of each target's breaker, and the calls of the targets."""

    def __init__(self, gates: dict[str, Gate]) -> None:
        self._gates = gates

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        state = GaugeMetricFamily(
            "openhqm_breaker_state", "1 for the state a breaker is in.", labels=["endpoint", "state"]
        )
        calls = GaugeMetricFamily("openhqm_target_calls_under_way", "Calls under way.", labels=["endpoint"])
        ended = CounterMetricFamily(
            "openhqm_target_calls",
            "Calls that have ended, by what they say about the target.",
            labels=["endpoint", "outcome"],
        )
        held = GaugeMetricFamily(
            "openhqm_dispatch_gate_closed", "1 while the gate of an endpoint says no.", labels=["endpoint"]
        )
        for name, gate in self._gates.items():
            calls.add_metric([name], gate.under_way)
            for success, outcome in ((True, "answered"), (False, "failed"), (None, "given_up")):
                ended.add_metric([name, outcome], gate.ended_calls[success])
            for each in State:
                state.add_metric([name, each.value], float(gate.breaker_state is each))
            if gate.dispatch is not None:
                held.add_metric([name], float(gate.dispatch.is_closed))
        return state, calls, ended, held
