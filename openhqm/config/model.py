# -*- test-case-name: tests.config.test_config -*-
"""The settings: one frozen record per concern. A default is what a line left out means."""

from __future__ import annotations

from typing import Any

import attrs
from attrs.validators import optional

from openhqm.config import rabbitmq_address, redis_address
from openhqm.config.endpoints import CALLERS, Proxy
from openhqm.config.routing import Routing
from openhqm.config.validators import between, dotted_path, not_empty, one_of
from openhqm.policy.addressing import Addressing, Partitioning
from openhqm.policy.fields import Field
from openhqm.policy.foreign import FORMATS
from openhqm.policy.retry import RetryPolicy


def redis_url(instance: object, attribute: object, value: Any) -> None:
    """The value is None or a URL that says where a Redis is."""
    if value is not None:
        redis_address.parse_address(value)


def rabbitmq_url(instance: object, attribute: object, value: Any) -> None:
    """The value is None or a URL that says where a RabbitMQ is."""
    if value is not None:
        rabbitmq_address.parse_address(value)


@attrs.frozen
class Server:
    """The door. ``endpoints`` (Twisted endpoint strings) stand in for ``host`` and ``port``.

    ``workers``: how many processes there are, each of them the whole service, on the same sockets.
    """

    enabled: bool = True
    workers: int = attrs.field(default=1, validator=between(1, 256))
    host: str = attrs.field(default="127.0.0.1", validator=not_empty)
    port: int = attrs.field(default=8000, validator=between(0, 65535))
    endpoints: list[str] = attrs.field(factory=list)
    max_body_bytes: int = attrs.field(default=10 * 1024 * 1024, validator=between(1, 1 << 30))
    max_connections: int = attrs.field(default=20_000, validator=between(1, 1_000_000))
    max_buffered_bytes: int = attrs.field(default=256 * 1024 * 1024, validator=between(1, 1 << 40))
    max_wait_seconds: float = attrs.field(default=60.0, validator=between(1, 3600))
    drain_seconds: float = attrs.field(default=30.0, validator=between(0, 3600))


@attrs.frozen
class Sqlite:
    """The embedded database: a directory of its own."""

    path: str = attrs.field(default="openhqm-data", validator=not_empty)


@attrs.frozen
class Redis:
    """A Redis, or the Sentinels that know it. ``key_prefix`` is what all of our keys begin with."""

    url: str = attrs.field(default="redis://localhost:6379/0", repr=False, validator=redis_url)
    key_prefix: str = attrs.field(default="{openhqm}:", validator=not_empty)
    timeout_seconds: float = attrs.field(default=1.5, validator=between(0.1, 60))


@attrs.frozen
class RabbitMQ:
    """A RabbitMQ, or the nodes of a cluster. ``prefix`` is what the names of all our queues begin with.

    ``consumer_timeout_seconds`` is what that server has as its ``consumer_timeout``; 0: it is switched off.
    ``lost_after_seconds`` is how long it has to have nothing of ours before what is open, and kept there alone, ends.
    """

    url: str = attrs.field(default="amqp://guest:guest@localhost:5672/%2F", repr=False, validator=rabbitmq_url)
    prefix: str = attrs.field(default="openhqm.", validator=not_empty)
    timeout_seconds: float = attrs.field(default=1.5, validator=between(0.1, 60))
    consumer_timeout_seconds: float = attrs.field(default=1800.0, validator=between(0, 366 * 86400))
    lost_after_seconds: float = attrs.field(default=60.0, validator=between(0, 366 * 86400))


@attrs.frozen
class Connection:
    """Where each backend is found."""

    sqlite: Sqlite = attrs.field(factory=Sqlite)
    redis: Redis = attrs.field(factory=Redis)
    rabbitmq: RabbitMQ = attrs.field(factory=RabbitMQ)


RESPONSES = "openhqm-responses"


@attrs.frozen
class Queue:
    """Where requests wait. A loan that nobody extends for ``lease_seconds`` is lent anew.

    ``format`` is how messages of others are read, on a broker that others reach; ``response_queue`` is for the replies
    to those that name no place for theirs. On RabbitMQ, workers without a store tell there what they do.
    """

    type: str = attrs.field(default="sqlite", validator=one_of(("sqlite", "memory", "redis", "rabbitmq")))
    request_queue: str = attrs.field(default="openhqm-requests", validator=not_empty)
    dead_letter_queue: str = attrs.field(default="openhqm-dlq", validator=not_empty)
    lease_seconds: float = attrs.field(default=60.0, validator=between(1, 86400))
    response_queue: str | None = attrs.field(default=None, validator=optional(not_empty))
    format: str = attrs.field(default="auto", validator=one_of(FORMATS))
    connection: Connection = attrs.field(factory=Connection)
    redis_url: str | None = attrs.field(default=None, repr=False, validator=redis_url)
    rabbitmq_url: str | None = attrs.field(default=None, repr=False, validator=rabbitmq_url)

    @property
    def steps_queue(self) -> str:
        """Where workers without a store tell what they do."""
        return self.response_queue or RESPONSES


@attrs.frozen
class Retry:
    """The back-off between attempts."""

    base_seconds: float = attrs.field(default=1.0, validator=between(0, 86400))
    factor: float = attrs.field(default=2.0, validator=between(1, 100))
    max_seconds: float = attrs.field(default=60.0, validator=between(0, 7 * 86400))
    jitter: float = attrs.field(default=0.1, validator=between(0, 1))


@attrs.frozen
class Worker:
    """What answers, and how often it is tried."""

    enabled: bool = True
    handler: str | None = attrs.field(default=None, validator=dotted_path)
    handlers: dict[str, str] = attrs.field(factory=dict, validator=dotted_path)
    executor: str = attrs.field(default="reactor", validator=one_of(("reactor", "thread")))
    count: int = attrs.field(default=5, validator=between(1, 1000))
    batch_size: int = attrs.field(default=10, validator=between(1, 1000))
    timeout_seconds: float = attrs.field(default=300.0, validator=between(0.001, 30 * 86400))
    max_retries: int = attrs.field(default=3, validator=between(0, 1000))
    retry: Retry = attrs.field(factory=Retry)

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


@attrs.frozen
class Cache:
    """How long an answer is kept. It rests where the queue does, or beside a broker that keeps none.

    ``type`` None: where the queue is; for a broker the embedded file.
    """

    type: str | None = attrs.field(default=None, validator=optional(one_of(("sqlite", "memory", "redis"))))
    redis_url: str | None = attrs.field(default=None, repr=False, validator=redis_url)
    ttl_seconds: float = attrs.field(default=3600.0, validator=between(1, 10 * 365 * 86400))


@attrs.frozen
class Auth:
    """Who may. None is only good for the loopback interface; ``none`` says that everybody may."""

    type: str | None = None


@attrs.frozen
class Monitoring:
    """What is told about the process."""

    metrics_enabled: bool = True
    access_log: bool = False
    log_level: str = attrs.field(default="INFO", validator=one_of(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")))
    log_format: str = attrs.field(default="json", validator=one_of(("json", "text")))


@attrs.frozen
class Settings:
    """Everything an operator decides."""

    server: Server = attrs.field(factory=Server)
    queue: Queue = attrs.field(factory=Queue)
    worker: Worker = attrs.field(factory=Worker)
    cache: Cache = attrs.field(factory=Cache)
    proxy: Proxy = attrs.field(factory=Proxy)
    routing: Routing = attrs.field(factory=Routing)
    partitioning: Partitions = attrs.field(factory=Partitions)
    auth: Auth = attrs.field(factory=Auth)
    monitoring: Monitoring = attrs.field(factory=Monitoring)

    def addressing(self) -> Addressing:
        """Where submissions go."""
        proxy, worker, partitions = self.proxy, self.worker, self.partitioning
        return Addressing(
            endpoints=proxy.names,
            callers=CALLERS if CALLERS in proxy.names else None,
            check_url=proxy.caller_targets.policy().check,
            default=proxy.default,
            handler=worker.handler is not None,
            operations=frozenset(worker.handlers),
            routes=self.routing.table(),
            partitioning=Partitioning(Field.parse(partitions.key_field), partitions.partition_count)
            if partitions.enabled
            else None,
        )
