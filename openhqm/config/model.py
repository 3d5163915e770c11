# -*- test-case-name: tests.config.test_config -*-
"""The settings: one frozen record per concern. A default is what a line left out means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import attrs
from attrs.validators import optional

from openhqm.config.auth import JWT, MTLS, ServerTLSFiles, WrongLogins
from openhqm.config.bridges import Bridge, NamedBroker, endpoints_apart, replies_of, unique_names
from openhqm.config.callbacks import CallbackSettings
from openhqm.config.cors import CorsSettings
from openhqm.config.endpoints import CALLERS, Proxy
from openhqm.config.hooks import Hook, hook_names
from openhqm.config.limits import RateLimit
from openhqm.config.queue_limits import QueueLimits
from openhqm.config.routing import Routing
from openhqm.config.schemas import schemas_of
from openhqm.config.structure import SECRET
from openhqm.config.tenants import Tenant, permissions_of, shares_of, unique_tenants
from openhqm.config.validators import (
    between,
    dotted_path,
    each_value,
    not_empty,
    one_of,
    payload_schema,
    payload_schemas,
    some_priorities,
)
from openhqm.messages import Priority
from openhqm.policy.addressing import Addressing, Partitioning
from openhqm.policy.callbacks import CALLBACKS, Callbacks, Channel
from openhqm.policy.fields import Field
from openhqm.policy.foreign import FORMATS
from openhqm.policy.guarantees import OF_A_QUEUE
from openhqm.policy.own_paths import SIDECAR_PREFIX, OwnPaths, check_prefix
from openhqm.policy.proxying import TrustedProxies
from openhqm.policy.retry import RetryPolicy

T = TypeVar("T", bound=attrs.AttrsInstance)
Record = type[T]
"""The attrs class of what an operator decides about a product."""

_SHORT_FORM = "short form"


def short_form(name: str) -> Mapping[str, str]:
    """Metadata for a field of a product's record: ``queue.NAME`` says the same, and wins over the field.

    Where the product is a result store beside a broker, ``cache.NAME`` says it for that one, and wins over both.
    """
    return {_SHORT_FORM: name}


def short_forms(record: type[attrs.AttrsInstance]) -> Mapping[str, attrs.Attribute[Any]]:
    """The fields of a product's record that have a short form, by that."""
    return {field.metadata[_SHORT_FORM]: field for field in attrs.fields(record) if _SHORT_FORM in field.metadata}


def _prefix(instance: object, attribute: object, value: str | None) -> None:
    check_prefix(value)


def _trusted_proxies(instance: object, attribute: object, value: list[str]) -> None:
    TrustedProxies(value)


@attrs.frozen
class Server:
    """The door. ``endpoints`` (Twisted endpoint strings) stand in for ``host`` and ``port``.

    ``prefix`` is where the paths for operators lie (`Settings.own_paths`). ``trusted_proxies`` are the peers whose
    ``X-Forwarded-*`` is believed (`policy.proxying.TrustedProxies`). With ``proxy_protocol``, their connections begin
    with the PROXY protocol.

    ``workers``: how many processes there are, each of them the whole service, on the same sockets.
    """

    enabled: bool = True
    workers: int = attrs.field(default=1, validator=between(1, 256))
    host: str = attrs.field(default="127.0.0.1", validator=not_empty)
    port: int = attrs.field(default=8000, validator=between(0, 65535))
    endpoints: list[str] = attrs.field(factory=list)
    tls: ServerTLSFiles = attrs.field(factory=ServerTLSFiles)
    prefix: str | None = attrs.field(default=None, validator=_prefix)
    proxy_protocol: bool = False
    trusted_proxies: list[str] = attrs.field(factory=list, validator=_trusted_proxies)
    max_body_bytes: int = attrs.field(default=10 * 1024 * 1024, validator=between(1, 1 << 30))
    max_connections: int = attrs.field(default=20_000, validator=between(1, 1_000_000))
    max_buffered_bytes: int = attrs.field(default=256 * 1024 * 1024, validator=between(1, 1 << 40))
    max_unsent_bytes: int = attrs.field(default=256 * 1024 * 1024, validator=between(1, 1 << 40))
    max_wait_seconds: float = attrs.field(default=60.0, validator=between(1, 3600))
    drain_seconds: float = attrs.field(default=30.0, validator=between(0, 3600))


@attrs.frozen
class Connection:
    """Where each product is found: `openhqm.config.records` gives it a field for each, named after the product."""


RESPONSES = "openhqm-responses"


@attrs.frozen(kw_only=True)
class Queue:
    """Where requests wait. A delivery whose lease is not extended for ``lease_seconds`` is delivered again.

    ``format`` says how messages of other programs are read, and ``response_queue`` where the replies to them go that
    name no place for theirs. With a broker, workers without a store report there. ``priorities`` are those that have
    a channel of their own in a broker; None: all three. ``accept`` says whether a 202 waits for the broker
    (``confirmed``) or for the ledger alone (``journaled``); None: as `Product.accept` has it. ``required`` is what has
    to be kept (`openhqm.policy.guarantees`). The short forms of the products are fields beside these
    (`openhqm.config.records`).
    """

    type: str
    request_queue: str = attrs.field(default="openhqm-requests", validator=not_empty)
    dead_letter_queue: str = attrs.field(default="openhqm-dlq", validator=not_empty)
    lease_seconds: float = attrs.field(default=60.0, validator=between(1, 86400))
    response_queue: str | None = attrs.field(default=None, validator=optional(not_empty))
    format: str = attrs.field(default="auto", validator=one_of(FORMATS))
    priorities: list[str] | None = attrs.field(default=None, validator=optional(some_priorities))
    limits: QueueLimits = attrs.field(factory=QueueLimits)
    accept: str | None = attrs.field(default=None, validator=optional(one_of(("confirmed", "journaled"))))
    required: str | None = attrs.field(default=None, validator=optional(one_of(OF_A_QUEUE)))
    connection: Connection

    @property
    def steps_queue(self) -> str:
        """Where workers without a store report what they do."""
        return self.response_queue or RESPONSES

    @property
    def channel_priorities(self) -> tuple[Priority, ...]:
        """The priorities that have a channel of their own in a broker, high first."""
        return tuple(each for each in Priority if self.priorities is None or each.value in self.priorities)

    def of(self, record: Record[T]) -> T:
        """The product's own record in ``queue.connection``, with what the short forms in ``queue`` say instead."""
        return _with_short_forms(self._connection(record)[1], self)

    def key(self, record: Record[T], name: str) -> str:
        """The key that the field ``name`` of a product's record has its value from: its short form, or its own."""
        for short, field in short_forms(record).items():
            if field.name == name and getattr(self, short) is not None:
                return f"queue.{short}"
        return f"queue.connection.{self._connection(record)[0]}.{name}"

    def _connection(self, record: Record[T]) -> tuple[str, T]:
        for field in attrs.fields(type(self.connection)):
            found = getattr(self.connection, field.name)
            if type(found) is record:
                return field.name, found
        raise LookupError(f"no product has {record.__name__} for its record")


def _with_short_forms(record: T, section: object) -> T:
    """The record with what a section says in its short forms."""
    said = {field.name: getattr(section, short, None) for short, field in short_forms(type(record)).items()}
    changed: T = attrs.evolve(cast(Any, record), **{name: each for name, each in said.items() if each is not None})
    return changed


@attrs.frozen
class Retry:
    """The back-off between attempts."""

    base_seconds: float = attrs.field(default=1.0, validator=between(0, 86400))
    factor: float = attrs.field(default=2.0, validator=between(1, 100))
    max_seconds: float = attrs.field(default=60.0, validator=between(0, 7 * 86400))
    jitter: float = attrs.field(default=0.1, validator=between(0, 1))


EXECUTORS = ("thread", "reactor", "asyncio", "process")


@attrs.frozen
class Worker:
    """What answers, and how often it is tried.

    ``executor`` is where handlers run; None: plain functions in threads, coroutines and Deferreds in the reactor.
    ``executors`` says so for single ones of ``handlers``, by operation. ``schema`` says what the payloads for
    ``handler`` have to be, ``schemas`` those for ``handlers``.
    """

    enabled: bool = True
    handler: str | None = attrs.field(default=None, validator=dotted_path)
    handlers: dict[str, str] = attrs.field(factory=dict, validator=dotted_path)
    schema: dict[str, Any] | None = attrs.field(default=None, validator=optional(payload_schema))
    schemas: dict[str, dict[str, Any]] = attrs.field(factory=dict, validator=payload_schemas)
    executor: str | None = attrs.field(default=None, validator=optional(one_of(EXECUTORS)))
    executors: dict[str, str] = attrs.field(factory=dict, validator=each_value(one_of(EXECUTORS)))
    count: int = attrs.field(default=5, validator=between(1, 1000))
    batch_size: int = attrs.field(default=10, validator=between(1, 1000))
    timeout_seconds: float = attrs.field(default=300.0, validator=between(0.001, 30 * 86400))
    max_retries: int = attrs.field(default=3, validator=between(0, 1000))
    retry: Retry = attrs.field(factory=Retry)

    @property
    def executor_of(self) -> dict[str, tuple[str, str | None]]:
        """Each handler and its executor, by the key of the handler."""
        found = {} if self.handler is None else {"worker.handler": (self.handler, self.executor)}
        for operation, path in self.handlers.items():
            found[f"worker.handlers.{operation}"] = (path, self.executors.get(operation, self.executor))
        return found

    @property
    def retry_policy(self) -> RetryPolicy:
        """The policy these settings describe."""
        retry = self.retry
        return RetryPolicy(self.max_retries, retry.base_seconds, retry.factor, retry.max_seconds, retry.jitter)


def field_name(instance: object, attribute: object, value: str) -> None:
    """The value names a field of a request."""
    Field.parse(value)


@attrs.frozen
class Partitions:
    """Which requests are worked on one at a time, in order: those with the same value in a field."""

    enabled: bool = False
    key_field: str = attrs.field(default="metadata.partition_key", validator=field_name)
    partition_count: int = attrs.field(default=16, validator=between(1, 256))


@attrs.frozen(kw_only=True)
class Cache:
    """The result store, and how long it keeps an answer. ``type`` None: where the queue is; for a broker, the default.

    The short forms of the products that can stand beside a broker are fields beside these (`openhqm.config.records`).
    """

    type: str | None
    ttl_seconds: float = attrs.field(default=3600.0, validator=between(1, 10 * 365 * 86400))


AUTH_TYPES = ("none", "api_key", "jwt", "mtls", "any")


@attrs.frozen
class Auth:
    """Who may. None is only good for the loopback interface; ``none`` says that everybody may.

    ``keys_file`` is the file of API keys, for ``api_key``, and ``jwt`` has the issuers of tokens, and ``mtls`` the
    clients with certificates. ``any``: what of these is configured.
    """

    type: str | None = attrs.field(default=None, validator=optional(one_of(AUTH_TYPES)))
    keys_file: str | None = attrs.field(default=None, validator=optional(not_empty))
    jwt: JWT = attrs.field(factory=JWT)
    mtls: MTLS = attrs.field(factory=MTLS)
    wrong_logins: WrongLogins = attrs.field(factory=WrongLogins)


SHORTEST_KEY = 16


def a_key(instance: object, attribute: object, value: str) -> None:
    """The value can be sent in a header field, and cannot be guessed soon."""
    if len(value) < SHORTEST_KEY or not (value.isascii() and value.isprintable()) or " " in value:
        raise ValueError(f"must have at least {SHORTEST_KEY} characters of ASCII, without spaces")


@attrs.frozen
class Admin:
    """What is for operators: routes that programs on the same host use, and at ``host`` and ``port`` a listener.

    ``port`` None: there is no such listener. Its routes need ``key``, where there is one, but for the probes.
    """

    enabled: bool = True
    host: str = attrs.field(default="127.0.0.1", validator=not_empty)
    port: int | None = attrs.field(default=None, validator=optional(between(0, 65535)))
    key: str | None = attrs.field(default=None, validator=optional(a_key), repr=False, metadata=SECRET)
    tls: ServerTLSFiles = attrs.field(factory=ServerTLSFiles)


@attrs.frozen
class Monitoring:
    """What is told about the process. ``log_format`` None: text on a terminal, else JSON."""

    metrics_enabled: bool = True
    access_log: bool = False
    log_level: str = attrs.field(default="INFO", validator=one_of(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")))
    log_format: str | None = attrs.field(default=None, validator=optional(one_of(("json", "text"))))


@attrs.frozen(kw_only=True)
class Settings:
    """Everything an operator decides."""

    server: Server = attrs.field(factory=Server)
    queue: Queue
    brokers: Mapping[str, NamedBroker] = attrs.field(factory=dict)
    bridges: list[Bridge] = attrs.field(factory=list, validator=unique_names)
    worker: Worker = attrs.field(factory=Worker)
    cache: Cache
    proxy: Proxy = attrs.field(factory=Proxy)
    routing: Routing = attrs.field(factory=Routing)
    partitioning: Partitions = attrs.field(factory=Partitions)
    callbacks: CallbackSettings = attrs.field(factory=CallbackSettings)
    rate_limit: RateLimit = attrs.field(factory=RateLimit)
    tenants: list[Tenant] = attrs.field(factory=list, validator=unique_tenants)
    hooks: dict[str, Hook] = attrs.field(factory=dict, validator=hook_names)
    auth: Auth = attrs.field(factory=Auth)
    cors: CorsSettings = attrs.field(factory=CorsSettings)
    admin: Admin = attrs.field(factory=Admin)
    monitoring: Monitoring = attrs.field(factory=Monitoring)

    def store_of(self, record: Record[T]) -> T:
        """The record of the product that is the result store: `Queue.of`, with the short forms in ``cache``."""
        return _with_short_forms(self.queue.of(record), self.cache)

    def own_paths(self) -> OwnPaths:
        """The paths that are the gateway's own. Without ``server.prefix``, a sidecar leaves ``/health`` to the
        application.
        """
        prefix = self.server.prefix
        if prefix is None:
            prefix = SIDECAR_PREFIX if self.proxy.sidecar.enabled else "/"
        return OwnPaths(prefix.rstrip("/"))

    def attempt_limits(self) -> list[tuple[str, float]]:
        """How long an attempt may take, in seconds, by each key that says so."""
        proxy = self.proxy
        found = [("worker.timeout_seconds", self.worker.timeout_seconds)]
        if proxy.enabled:
            found += [(f"proxy.endpoints.{name}.timeout", each.timeout) for name, each in proxy.endpoints.items()]
        if proxy.sidecar.enabled:
            found.append(("proxy.sidecar.timeout", proxy.sidecar.timeout))
        for index, route in enumerate(self.routing.routes):
            if route.timeout is not None:
                found.append((f"routing.routes.{index}.timeout", route.timeout))
        return found

    @property
    def reply_brokers(self) -> Sequence[str]:
        """The brokers that replies go to: to bridged messages, and to requests that name them."""
        found = [broker for each in self.bridges if (broker := each.reply_broker) is not None]
        return tuple(dict.fromkeys((*found, *self.callbacks.reply_topics)))

    @property
    def replay_rates(self) -> dict[str, float]:
        """The bridges whose backlog goes at a rate of its own, in requests a second."""
        return {each.name: each.replay.rate for each in self.bridges if each.replay.rate is not None}

    def addressing(self) -> Addressing:
        """Where submissions go."""
        proxy, worker, partitions, callbacks = self.proxy, self.worker, self.partitioning, self.callbacks
        shares = tuple(name for name in shares_of(self.tenants) if name is not None)
        return Addressing(
            endpoints=proxy.names,
            hidden=(*map(replies_of, self.reply_brokers), *((CALLBACKS,) if callbacks.sends else ())),
            follow_ups=Callbacks(
                callbacks.policy().check if callbacks.sends else None,
                {name: Channel(replies_of(name), topics) for name, topics in callbacks.reply_topics.items()},
                shares,
            ).of,
            callers=CALLERS if CALLERS in proxy.names else None,
            check_url=proxy.caller_targets.policy().check,
            default=proxy.default,
            handler=worker.handler is not None,
            operations=frozenset(worker.handlers),
            routes=self.routing.table(),
            schemas=schemas_of(self),
            apart=endpoints_apart(self.bridges, proxy.names),
            permissions=permissions_of(self.tenants),
            shares=shares,
            partitioning=Partitioning(Field.parse(partitions.key_field), partitions.partition_count)
            if partitions.enabled
            else None,
        )
