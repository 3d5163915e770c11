# -*- test-case-name: tests.workers.test_pool -*-
"""The worker pool: a consumer for each queue, with the handler or the target of that queue's requests."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.web.iweb import IAgent, IPolicyForHTTPS

from openhqm.config.endpoints import CALLERS, Endpoint
from openhqm.config.model import Settings
from openhqm.errors import Complaint, ConfigurationError
from openhqm.http1.client import close_agent, make_agent
from openhqm.http1.guarded import guarded_agent
from openhqm.interfaces import IMessageQueue
from openhqm.policy.addressing import Addressing
from openhqm.policy.breaker import NEVER, Breaker, State
from openhqm.policy.pacing import AdaptiveLimit, Pace
from openhqm.policy.queue_names import queue_name
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.threads import Threads
from openhqm.workers.attempt import AttemptContext
from openhqm.workers.consumer import Consumer
from openhqm.workers.credentials import ClientCredentials, Credentials, Fixed, TokenRequest, basic
from openhqm.workers.egress import Egress
from openhqm.workers.gate import Gate
from openhqm.workers.handlers import Handler, Handlers, load_handler
from openhqm.workers.metrics import WorkerMetrics
from openhqm.workers.replies import MOST_RESULT_BYTES


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
    ) -> None:
        worker = settings.worker
        self._settings = settings
        self._reactor = reactor
        self._metrics = WorkerMetrics(registry)
        self._addressing = addressing
        self._threads = Threads(reactor, "openhqm-handlers", worker.count) if worker.executor == "thread" else None
        self.gates: dict[str, Gate] = {}
        self._agents: list[IAgent] = []
        self.queues: list[str] = []
        proxy = settings.proxy
        endpoints = {name: proxy.all_endpoints[name] for name in proxy.names if name != CALLERS}
        tls = _read_certificates(endpoints)
        targets = {name: self._target_context(name, each, tls[name]) for name, each in endpoints.items()}
        if CALLERS in proxy.names:
            targets[CALLERS] = self._caller_target_context()
        own = self._context(_load_handlers(settings, self._threads), worker.timeout_seconds)
        self._consumers = []
        for in_name, endpoint, partition in addressing.lanes():
            name = queue_name(settings.queue.request_queue, in_name, partition)
            slots = self._slots(endpoint)
            self.queues.append(name)
            self._consumers.append(
                Consumer(
                    queue,
                    name,
                    own if endpoint is None else targets[endpoint],
                    reactor,
                    count=slots if partition is None else 1,
                    batch=worker.batch_size,
                    in_order=partition is not None,
                    lease=settings.queue.lease_seconds,
                )
            )
        registry.register(BreakerCollector(self.gates))

    @property
    def unavailable_reason(self) -> str | None:
        """The first reason for which a consumer takes no requests although it should, or None."""
        return next((reason for each in self._consumers if (reason := each.unavailable_reason)), None)

    def start(self) -> None:
        """Begin to receive requests."""
        if self._threads is not None:
            self._threads.start()
        for consumer in self._consumers:
            consumer.start()

    @deferred
    async def stop(self, seconds: float) -> None:
        """Stop receiving, wait up to ``seconds`` for the attempts in progress, and release the other deliveries.

        Fires when the consumers have stopped and the connections to the targets are closed.
        """
        await self._wait_for_all("stopping a consumer", [consumer.stop(seconds) for consumer in self._consumers])
        await self._wait_for_all("closing the connections to a target", [close_agent(agent) for agent in self._agents])

    async def _wait_for_all(self, what: str, steps: Iterable[Deferred[None]]) -> None:
        """Wait for all ``steps``. Each failure is logged."""
        for done, failure in await DeferredList(steps, consumeErrors=True):
            if not done:
                self._log.failure("{what} broke down", failure, what=what)

    def join(self) -> None:
        """Stop the threads of the handlers."""
        if self._threads is not None:
            self._threads.stop()

    def _slots(self, endpoint: str | None) -> int:
        """How many requests the consumer of ``endpoint`` works on at once."""
        configured = self._settings.proxy.all_endpoints.get(endpoint or "")
        return (configured.max_in_flight if configured is not None else None) or self._settings.worker.count

    def _context(
        self, handlers: Handlers, timeout: float, gate: Gate | None = None, most_result: int = MOST_RESULT_BYTES
    ) -> AttemptContext:
        reactor = self._reactor
        if gate is None and self._addressing.partitioning is not None:
            # Each partition has a consumer of its own. Together they work on at most worker.count requests.
            gate = Gate(reactor, Breaker(NEVER), limit=self._settings.worker.count)
        return AttemptContext(
            handlers=handlers,
            policy=self._settings.worker.retry_policy,
            timeout=timeout,
            clock=reactor,
            random=random.random,
            from_thread=reactor.callFromThread if self._threads is not None else lambda call: call(),
            metrics=self._metrics,
            gate=gate,
            most_result=most_result,
        )

    def _target_context(self, name: str, endpoint: Endpoint, tls: IPolicyForHTTPS | None) -> AttemptContext:
        proxy = self._settings.proxy
        slots = self._slots(name)
        gate = self.gates[name] = Gate(
            self._reactor,
            Breaker(endpoint.circuit_breaker.policy),
            limit=slots,
            pace=Pace(endpoint.rate.requests, endpoint.rate.per_seconds) if endpoint.rate is not None else None,
            adaptive=AdaptiveLimit(slots) if endpoint.adaptive else None,
        )
        egress = Egress(
            proxy.target(name),
            self._agent(tls, kept=slots),
            self._credentials(endpoint),
            self._addressing.routes,
            self._reactor,
            proxy.max_response_bytes,
        )
        return self._context(Handlers(egress, {}, None), endpoint.timeout, gate, proxy.max_response_bytes)

    def _agent(self, tls: IPolicyForHTTPS | None, kept: int) -> IAgent:
        agent = make_agent(self._reactor, tls, kept=kept)
        self._agents.append(agent)
        return agent

    def _caller_target_context(self) -> AttemptContext:
        """For targets that requests name by URL: each URL is checked before the call, and no connection is kept."""
        proxy, worker = self._settings.proxy, self._settings.worker
        policy = proxy.caller_targets.policy()
        egress = Egress(
            proxy.target(CALLERS),
            guarded_agent(self._reactor, policy.check, policy.permits),
            Fixed({}),
            self._addressing.routes,
            self._reactor,
            proxy.max_response_bytes,
        )
        return self._context(Handlers(egress, {}, None), worker.timeout_seconds, most_result=proxy.max_response_bytes)

    def _credentials(self, endpoint: Endpoint) -> Credentials:
        token = endpoint.auth_token or ""
        if endpoint.auth_type == "bearer":
            return Fixed({"Authorization": f"Bearer {token}"})
        if endpoint.auth_type == "basic":
            return Fixed({"Authorization": basic(endpoint.auth_username or "", endpoint.auth_password or "")})
        if endpoint.auth_type in ("api_key", "custom"):
            return Fixed({endpoint.auth_header_name or "X-API-Key": token})
        if endpoint.auth_type == "oauth2_client_credentials":
            request = TokenRequest(
                endpoint.auth_token_url or "",
                endpoint.auth_client_id or "",
                endpoint.auth_client_secret or "",
                endpoint.auth_scope,
            )
            return ClientCredentials(request, self._agent(_tls_policy(request.url), kept=1), self._reactor)
        return Fixed({})


def _tls_policy(url: str, *files: str | None) -> IPolicyForHTTPS | None:
    """The TLS policy for ``url``, or None where it needs none. `ValueError` for files that cannot be read or used."""
    if not url.startswith("https:") and not any(files):
        return None
    from openhqm.runtime.tls import TLSPolicy

    policy: IPolicyForHTTPS = TLSPolicy.from_files(*files) if files else TLSPolicy()
    return policy


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
        for name, gate in self._gates.items():
            calls.add_metric([name], gate.under_way)
            for success, outcome in ((True, "answered"), (False, "failed"), (None, "given_up")):
                ended.add_metric([name, outcome], gate.ended_calls[success])
            for each in State:
                state.add_metric([name, each.value], float(gate.state is each))
        return state, calls, ended


def _read_certificates(endpoints: Mapping[str, Endpoint]) -> dict[str, IPolicyForHTTPS | None]:
    """The TLS policy of each endpoint. `ConfigurationError` names each one whose certificates cannot be used."""
    found: dict[str, IPolicyForHTTPS | None] = {}
    complaints = []
    for name, endpoint in endpoints.items():
        files = endpoint.tls
        try:
            found[name] = _tls_policy(endpoint.url, files.ca, files.cert, files.key)
        except ValueError as error:
            complaints.append(Complaint(f"proxy.endpoints.{name}.tls", str(error)))
    if complaints:
        raise ConfigurationError(complaints)
    return found


def _load_handlers(settings: Settings, threads: Threads | None) -> Handlers:
    """Import the configured handlers, also from the working directory. `ConfigurationError` names each that fails."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    worker = settings.worker
    complaints: list[Complaint] = []

    def loaded(key: str, path: str) -> Handler | None:
        try:
            return load_handler(path)
        except ValueError as error:
            complaints.append(Complaint(key, str(error)))
            return None

    default = loaded("worker.handler", worker.handler) if worker.handler is not None else None
    by_operation = {
        operation: handler
        for operation, path in worker.handlers.items()
        if (handler := loaded(f"worker.handlers.{operation}", path)) is not None
    }
    if complaints:
        raise ConfigurationError(complaints)
    return Handlers(default, by_operation, threads.run if threads is not None else None)
