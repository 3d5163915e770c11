# -*- test-case-name: tests.workers.test_pool,tests.workers.test_exchange -*-
"""What the consumers of each queue work with: handlers or a target, its gate, its connections and its credentials."""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import attrs
from twisted.internet.defer import Deferred
from twisted.python.threadable import isInIOThread
from twisted.web.iweb import IPolicyForHTTPS

from openhqm.config.bridges import replies_of
from openhqm.config.endpoints import CALLERS, Endpoint
from openhqm.config.model import Settings
from openhqm.errors import Complaint, ConfigurationError
from openhqm.http1.client import Client, IFetch, make_client
from openhqm.http1.guarded import GuardedClient, guarded_client
from openhqm.interfaces import IForeignBroker
from openhqm.policy.breaker import NEVER, Breaker
from openhqm.policy.callbacks import CALLBACKS
from openhqm.policy.pacing import AdaptiveLimit, Pace
from openhqm.policy.routing import RouteTable
from openhqm.runtime.tunnels import HTTPProxy
from openhqm.workers.attempt import AttemptContext
from openhqm.workers.callbacks import Calling
from openhqm.workers.credentials import ClientCredentials, Credentials, Fixed, TokenRequest, basic
from openhqm.workers.dispatch_gate import DispatchGate
from openhqm.workers.egress import Egress
from openhqm.workers.executors import Executors
from openhqm.workers.gate import Gate
from openhqm.workers.handlers import Handler, Handlers, TokenOf, no_token
from openhqm.workers.loading import load_handlers
from openhqm.workers.metrics import WorkerMetrics
from openhqm.workers.publishing import BrokerBreaker, Publishing, ReplyPublishing
from openhqm.workers.replies import MOST_RESULT_BYTES


@attrs.frozen(eq=False)
class Parts:
    """What all attempts at one endpoint share, and the configuration that it was made from."""

    endpoint: Endpoint
    slots: int
    gate: Gate
    client: Client
    credentials: Credentials


@attrs.frozen(eq=False)
class Contexts:
    """The contexts under ``settings``: the one for Python handlers, and that of each endpoint, by name."""

    settings: Settings
    own: AttemptContext
    targets: Mapping[str, AttemptContext]
    parts: Mapping[str, Parts]

    def of(self, endpoint: str | None) -> AttemptContext:
        """The context for ``endpoint``; None: for Python handlers."""
        return self.own if endpoint is None else self.targets[endpoint]

    def give_probes(self) -> None:
        """From now on the gates probe their targets as these contexts do."""
        for name, parts in self.parts.items():
            parts.gate.probe = self.targets[name].probe


class ContextMaker:
    """Makes `Contexts`. ``executors`` run the handlers."""

    def __init__(
        self,
        reactor: Any,
        metrics: WorkerMetrics,
        executors: Executors,
        brokers: Mapping[str, IForeignBroker] = MappingProxyType({}),
        token_of: TokenOf = no_token,
    ) -> None:
        self._token_of = token_of
        self._brokers = brokers
        self._reactor = reactor
        self._metrics = metrics
        self._executors = executors
        self._clients: WeakSet[Client | GuardedClient] = WeakSet()

    def make(self, settings: Settings, routes: RouteTable, before: Contexts | None = None) -> Contexts:
        """The contexts under ``settings``, without an effect on those of ``before``.

        They have what is as it was in ``before``: the context where nothing has changed, the gate where target and
        limits have not, the connections where URL and certificates have not. Handlers are imported and certificates
        read where they have changed; `ConfigurationError` names each that fails.
        """
        complaints: list[Complaint] = []
        parts: dict[str, Parts] = {}
        own = None
        published = {name: each for name, each in settings.proxy.all_endpoints.items() if each.publish is not None}
        for name in (name for name in settings.proxy.names if name != CALLERS and name not in published):
            try:
                parts[name] = self._parts(settings, name, None if before is None else before.parts.get(name))
            except ConfigurationError as error:
                complaints += error.complaints
        try:
            own = self._own(settings, before)
        except ConfigurationError as error:
            complaints += error.complaints
        if complaints or own is None:
            raise ConfigurationError(complaints)
        targets = {name: self._target(settings, name, each, routes, before) for name, each in parts.items()}
        for name in (name for name in settings.proxy.names if name in published):
            targets[name] = self._published(settings, name, published[name], routes)
        for broker in settings.reply_brokers:
            handler, timeout = ReplyPublishing(self._brokers[broker], self._reactor), settings.worker.timeout_seconds
            targets[replies_of(broker)] = self._publishing(settings, broker, handler, timeout, settings.worker.count)
        if settings.callbacks.sends:
            targets[CALLBACKS] = self._callbacks(settings, before)
        if CALLERS in settings.proxy.names:
            targets[CALLERS] = self._callers(settings, routes, before)
        return Contexts(settings, own, targets, parts)

    def close_replaced(self, before: Contexts, after: Contexts) -> None:
        """Close the idle connections that only ``before`` has. Those in use are closed once they have been idle."""
        kept = {id(each.client) for each in after.parts.values()}
        for each in before.parts.values():
            if id(each.client) not in kept:
                each.client.close_idle()

    def close(self) -> list[Deferred[None]]:
        """Close all idle connections, also of targets that were replaced. They fire when those are closed."""
        return [each.close_idle() for each in list(self._clients)]

    def _own(self, settings: Settings, before: Contexts | None) -> AttemptContext:
        worker = settings.worker
        if before is None:
            handlers = load_handlers(worker, self._executors)
            return self._context(settings, handlers, worker.timeout_seconds, self._order_gate(settings))
        old, handlers = before.settings.worker, before.own.handlers
        changed = (worker.handler, worker.handlers, worker.executor, worker.executors)
        if changed != (old.handler, old.handlers, old.executor, old.executors):
            handlers = load_handlers(worker, self._executors, again=True)
        elif (worker.retry_policy, worker.timeout_seconds) == (old.retry_policy, old.timeout_seconds):
            return before.own
        return self._context(settings, handlers, worker.timeout_seconds, before.own.gate)

    def _target(
        self, settings: Settings, name: str, parts: Parts, routes: RouteTable, before: Contexts | None
    ) -> AttemptContext:
        if before is not None and before.parts.get(name) is parts and _same_for_targets(settings, before.settings):
            return before.targets[name]
        egress = self._egress(settings, name, parts.client, parts.credentials, routes)
        most = settings.proxy.max_response_bytes
        context = self._context(settings, Handlers(egress, {}), parts.endpoint.timeout, parts.gate, most)
        return attrs.evolve(context, probe=egress.probe)

    def _published(self, settings: Settings, name: str, endpoint: Endpoint, routes: RouteTable) -> AttemptContext:
        """For an endpoint that is a channel of a broker."""
        publish = endpoint.publish
        assert publish is not None
        broker = self._brokers[publish.broker]
        handler = Publishing(name, publish, endpoint.reply, broker, routes, self._reactor)
        return self._publishing(settings, publish.broker, handler, endpoint.timeout, slots_of(settings, name))

    def _publishing(
        self, settings: Settings, broker: str, handler: Handler, timeout: float, slots: int
    ) -> AttemptContext:
        breaker = BrokerBreaker(lambda: self._brokers[broker].unavailable_reason)
        gate = Gate(self._reactor, breaker, limit=slots, replay_rates=settings.replay_rates)
        return self._context(settings, Handlers(handler, {}), timeout, gate)

    def _callers(self, settings: Settings, routes: RouteTable, before: Contexts | None) -> AttemptContext:
        """For targets that requests name by URL: each URL is checked before the call, and no connection is kept."""
        proxy, worker = settings.proxy, settings.worker
        old = None if before is None else before.targets.get(CALLERS)
        if before is not None and old is not None and _same_for_targets(settings, before.settings):
            was = before.settings
            if (was.proxy.caller_targets, was.worker.timeout_seconds) == (proxy.caller_targets, worker.timeout_seconds):
                return old
        policy = proxy.caller_targets.policy()
        client = guarded_client(self._reactor, policy.check, policy.permits)
        egress = self._egress(settings, CALLERS, client, Fixed({}), routes)
        gate = self._order_gate(settings) if old is None else old.gate
        most = proxy.max_response_bytes
        return self._context(settings, Handlers(egress, {}), worker.timeout_seconds, gate, most)

    def _callbacks(self, settings: Settings, before: Contexts | None) -> AttemptContext:
        """For callbacks. They have no gate, because each may have another target."""
        callbacks = settings.callbacks
        if before is not None and before.settings.callbacks == callbacks:
            return before.targets[CALLBACKS]
        policy = callbacks.policy()
        client = guarded_client(self._reactor, policy.check, policy.permits, kept=callbacks.max_in_flight)
        self._clients.add(client)
        handler = Calling(client, callbacks.keys, self._reactor, self._metrics)
        context = self._context(settings, Handlers(handler, {}), callbacks.timeout, None)
        return attrs.evolve(context, policy=callbacks.retries)

    def _egress(
        self, settings: Settings, name: str, client: IFetch, credentials: Credentials, routes: RouteTable
    ) -> Egress:
        proxy = settings.proxy
        most = proxy.max_response_bytes
        return Egress(proxy.target(name), client, credentials, routes, self._reactor, most, self._token_of)

    def _context(
        self,
        settings: Settings,
        handlers: Handlers,
        timeout: float,
        gate: Gate | None,
        most_result: int = MOST_RESULT_BYTES,
    ) -> AttemptContext:
        reactor = self._reactor
        return AttemptContext(
            handlers=handlers,
            policy=settings.worker.retry_policy,
            timeout=timeout,
            clock=reactor,
            random=random.random,
            from_thread=lambda call: call() if isInIOThread() else reactor.callFromThread(call),
            metrics=self._metrics,
            gate=gate,
            most_result=most_result,
        )

    def _order_gate(self, settings: Settings) -> Gate | None:
        """Each partition has a consumer of its own. Together they work on at most ``worker.count`` requests."""
        if not settings.partitioning.enabled:
            return None
        breaker, rates = Breaker(NEVER), settings.replay_rates
        return Gate(self._reactor, breaker, limit=settings.worker.count, replay_rates=rates)

    def _parts(self, settings: Settings, name: str, old: Parts | None) -> Parts:
        endpoint, slots = settings.proxy.all_endpoints[name], slots_of(settings, name)
        if old is not None and (old.endpoint, old.slots) == (endpoint, slots):
            return old
        if old is not None and _identity(old.endpoint, old.slots) == _identity(endpoint, slots):
            client = old.client
        else:
            client = self._client(self._tls(name, endpoint, endpoint.url), kept=slots, through=_through(endpoint))
        gate = self._gate(name, endpoint, slots, settings.replay_rates)
        if old is not None and _limits(old.endpoint, old.slots) == _limits(endpoint, slots):
            gate = old.gate
        elif old is not None:
            gate.ended_calls = old.gate.ended_calls  # a counter does not begin again at 0
        return Parts(endpoint, slots, gate, client, self._credentials(endpoint))

    def _gate(self, name: str, endpoint: Endpoint, slots: int, replay_rates: Mapping[str, float]) -> Gate:
        return Gate(
            self._reactor,
            Breaker(endpoint.circuit_breaker.policy),
            limit=slots,
            pace=Pace(endpoint.rate.requests, endpoint.rate.per_seconds) if endpoint.rate is not None else None,
            adaptive=AdaptiveLimit(slots) if endpoint.adaptive else None,
            replay_rates=replay_rates,
            dispatch=self._dispatch_gate(name, endpoint),
            name=name,
        )

    def _dispatch_gate(self, name: str, endpoint: Endpoint) -> DispatchGate | None:
        gate = endpoint.gate
        if gate is None:
            return None
        tls = self._tls(name, endpoint, gate.url)
        client = self._client(tls, kept=0, through=_through(endpoint))
        return DispatchGate(name, gate.url, client, self._reactor, gate.interval, random.random)

    def _tls(self, name: str, endpoint: Endpoint, url: str) -> IPolicyForHTTPS | None:
        """The TLS policy of an endpoint, for ``url``. `ConfigurationError`: its files cannot be used."""
        files, section = endpoint.tls, f"proxy.endpoints.{name}.tls"
        if files.ca is None and files.cert is None and files.key is None:
            return _platform_tls(url)
        from openhqm.runtime.renewed_tls import RenewedTLS

        try:
            policy: IPolicyForHTTPS = RenewedTLS(files.ca, files.cert, files.key, section, self._reactor.seconds)
        except ValueError as error:
            raise ConfigurationError([Complaint(section, str(error))]) from None
        return policy

    def _client(self, tls: IPolicyForHTTPS | None, kept: int, through: HTTPProxy | None = None) -> Client:
        client = make_client(self._reactor, tls, kept=kept, through=through)
        self._clients.add(client)
        return client

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
            client = self._client(_platform_tls(request.url), kept=1, through=_through(endpoint))
            return ClientCredentials(request, client, self._reactor)
        return Fixed({})


def slots_of(settings: Settings, endpoint: str | None) -> int:
    """How many requests the consumer of ``endpoint`` works on at once."""
    if endpoint == CALLBACKS:
        return settings.callbacks.max_in_flight
    configured = settings.proxy.all_endpoints.get(endpoint or "")
    return (configured.max_in_flight if configured is not None else None) or settings.worker.count


def _same_for_targets(settings: Settings, before: Settings) -> bool:
    """Whether what holds for every target is as it was."""

    def shared(of: Settings) -> tuple[object, ...]:
        proxy = of.proxy
        forwarding = (proxy.forward_headers, proxy.strip_headers, proxy.max_response_bytes)
        return (of.routing, of.worker.retry_policy, *forwarding)

    return shared(settings) == shared(before)


def _identity(endpoint: Endpoint, slots: int) -> tuple[object, ...]:
    """What the connections to a target depend on."""
    proxy = endpoint.egress_proxy, endpoint.egress_proxy_username, endpoint.egress_proxy_password
    return endpoint.url, endpoint.tls, proxy, slots


def _through(endpoint: Endpoint) -> HTTPProxy | None:
    """The proxy that connections to a target go through."""
    if endpoint.egress_proxy is None:
        return None
    parts = urlsplit(endpoint.egress_proxy)
    host, port = parts.hostname or "", parts.port or 80
    if endpoint.egress_proxy_username is None or endpoint.egress_proxy_password is None:
        return HTTPProxy(host, port)
    return HTTPProxy.with_password(host, port, endpoint.egress_proxy_username, endpoint.egress_proxy_password)


def _limits(endpoint: Endpoint, slots: int) -> tuple[object, ...]:
    """What the gate before a target depends on: another target has done nothing yet to open a breaker."""
    files = endpoint.tls if endpoint.gate is not None else None  # for the gate has connections of its own
    proxy = endpoint.egress_proxy, endpoint.egress_proxy_username, endpoint.egress_proxy_password
    own = endpoint.gate, files, proxy
    return endpoint.url, endpoint.rate, endpoint.adaptive, endpoint.circuit_breaker, slots, own


def _platform_tls(url: str) -> IPolicyForHTTPS | None:
    """The TLS policy for ``url`` without files, or None where it needs none."""
    if not url.startswith("https:"):
        return None
    from openhqm.runtime.tls import TLSPolicy

    policy: IPolicyForHTTPS = TLSPolicy()
    return policy
