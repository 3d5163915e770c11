# -*- test-case-name: tests.test_service -*-
"""A queue and the result store beside it, opened and closed together."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime

from openhqm.brokered.ledger import Ledger
from openhqm.brokered.queue import BrokeredQueue
from openhqm.config import rabbitmq_address
from openhqm.config.model import Settings
from openhqm.config.redis_address import parse_address
from openhqm.errors import CannotStart
from openhqm.interfaces import IMessageQueue, IResultStore
from openhqm.memory.queue import MemoryQueue
from openhqm.memory.results import MemoryResults
from openhqm.messages import Submission
from openhqm.policy.addressing import Addressing
from openhqm.policy.ids import CorrelationIds
from openhqm.rabbitmq import wire as rabbitmq
from openhqm.rabbitmq.broker import RabbitMQBroker
from openhqm.rabbitmq.topology import Claim
from openhqm.redis.connection import Redis
from openhqm.redis.intake import RedisIntake
from openhqm.redis.ledger import RedisLedger
from openhqm.redis.queue import RedisQueue
from openhqm.redis.results import RedisResults
from openhqm.redis.wire import check_installed
from openhqm.runtime.deferreds import deferred
from openhqm.sqlite.file import RunCommit, SqliteFile
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.sqlite.queue import SqliteQueue
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.steps import SqliteSteps
from openhqm.storeless.ledger import StorelessLedger
from openhqm.storeless.results import NullResultStore
from openhqm.storeless.steps_consumer import Following


class _KeepsTime(Protocol):
    def start(self) -> None:
        """Begin to keep deadlines and expiry."""

    def stop(self) -> None:
        """Stop."""


class _Intake(Protocol):
    def start(self) -> None:
        """Begin to adopt messages of others."""

    def stop(self) -> Deferred[None]:
        """Adopt no more."""


def _no_intake(addressing: Addressing, check: Callable[[Submission, float], None]) -> _Intake | None:
    """Nobody else puts anything into an embedded queue."""
    return None


@attrs.frozen
class Backend:
    """Where requests and answers rest. ``start`` raises `CannotStart`.

    ``when_probed`` fires once it is known whether what is elsewhere can be reached. ``make_intake`` makes what adopts
    messages of others, or None where there are none.
    """

    queue: IMessageQueue
    store: IResultStore
    _timekeeper: _KeepsTime
    when_probed: Callable[[], Deferred[None]] = attrs.field(default=lambda: succeed(None))
    make_intake: Callable[[Addressing, Callable[[Submission, float], None]], _Intake | None] = _no_intake

    @deferred
    async def start(self) -> None:
        """Open the queue, and then keep the store's deadlines."""
        await self.queue.start()
        self._timekeeper.start()

    @deferred
    async def check(self) -> None:
        """Open it, and wait until it is known whether it works. `CannotStart`."""
        await self.start()
        await self.when_probed()
        if self.queue.unavailable_reason is not None:
            raise CannotStart(self.queue.unavailable_reason)

    @deferred
    async def stop(self) -> None:
        """Close both."""
        self._timekeeper.stop()
        await self.queue.stop()


def make_backend(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> Backend:
    """The backend for ``queue.type``. Does no I/O."""
    return _MAKERS[settings.queue.type](settings, clock, run_commit)


def _sqlite(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> Backend:
    file = SqliteFile(os.path.abspath(settings.queue.connection.sqlite.path), clock, run_commit)
    store = SqliteResults(file, clock, settings.cache.ttl_seconds)
    queue = SqliteQueue(
        file,
        store,
        clock,
        requests=settings.queue.request_queue,
        dead_letters=settings.queue.dead_letter_queue,
        lease=settings.queue.lease_seconds,
    )
    return Backend(queue, store, store)


def _memory(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> Backend:
    ids = CorrelationIds(os.urandom(32))
    store = MemoryResults(clock, ids, settings.cache.ttl_seconds)
    names = settings.queue
    queue = MemoryQueue(
        store,
        clock,
        ids,
        requests=names.request_queue,
        dead_letters=names.dead_letter_queue,
        lease=names.lease_seconds,
    )
    return Backend(queue, store, store)


def _redis(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> Backend:
    check_installed()
    names = settings.queue
    ttl = settings.cache.ttl_seconds
    redis = _connect_redis(settings, clock, names.redis_url)
    store = RedisResults(redis, ttl)
    queue = RedisQueue(
        redis,
        requests=names.request_queue,
        dead_letters=names.dead_letter_queue,
        ttl=ttl,
        lease=names.lease_seconds,
    )

    def make_intake(addressing: Addressing, check: Callable[[Submission, float], None]) -> RedisIntake:
        most_bytes = settings.server.max_body_bytes
        answers = names.response_queue
        return RedisIntake(redis, queue, names.request_queue, names.format, addressing, check, most_bytes, answers)

    return Backend(queue, store, store, redis.when_probed, make_intake)


def _connect_redis(settings: Settings, clock: IReactorTime, url: str | None) -> Redis:
    where = settings.queue.connection.redis
    address = parse_address(url or where.url)
    return Redis(address, where.key_prefix, clock, random.random, seconds=where.timeout_seconds)


def _rabbitmq(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> Backend:
    """Messages in RabbitMQ, and the books beside it: in Redis, in the embedded file, or with who keeps that."""
    rabbitmq.check_installed()
    if settings.cache.type == "redis":
        return _rabbitmq_and_redis(settings, clock)
    return _rabbitmq_and_file(settings, clock, run_commit) if settings.server.enabled else _told(settings, clock)


def _rabbitmq_and_redis(settings: Settings, clock: IReactorTime) -> Backend:
    check_installed()
    names = settings.queue
    ttl = settings.cache.ttl_seconds
    broker = _connect_rabbitmq(settings, clock)
    redis = _connect_redis(settings, clock, settings.cache.redis_url or names.redis_url)
    ledger = RedisLedger(
        redis,
        requests=names.request_queue,
        dead_letters=names.dead_letter_queue,
        ttl=ttl,
        lost_after=names.connection.rabbitmq.lost_after_seconds,
    )
    store = RedisResults(redis, ttl)

    def when_probed() -> Deferred[None]:
        return gatherResults([redis.when_probed(), broker.when_probed()]).addCallback(lambda _: None)

    return Backend(_brokered(settings, clock, broker, ledger), store, store, when_probed)


def _rabbitmq_and_file(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> Backend:
    """It follows what workers without a store tell, and no other process can."""
    names = settings.queue
    refused = (
        f"another process with a file of its own follows {names.steps_queue}, or has until a moment ago: "
        "stop it, or share the books with cache.type: redis"
    )
    claim = Claim(f"{names.steps_queue}!followed", refused)
    broker = _connect_rabbitmq(settings, clock, claim=claim, steps=names.steps_queue)
    file = SqliteFile(os.path.abspath(names.connection.sqlite.path), clock, run_commit)
    store = SqliteResults(file, clock, settings.cache.ttl_seconds)
    ledger = SqliteLedger(file, store, clock, requests=names.request_queue, dead_letters=names.dead_letter_queue)
    following = Following(broker, SqliteSteps(file, store, ledger), clock, names.steps_queue)
    return Backend(_brokered(settings, clock, broker, ledger, following), store, store, broker.when_probed)


def _told(settings: Settings, clock: IReactorTime) -> Backend:
    """A worker without a store."""
    names = settings.queue
    broker = _connect_rabbitmq(settings, clock, patient=True, steps=names.steps_queue)
    name = os.urandom(8).hex()
    ledger = StorelessLedger(broker, clock, requests=names.request_queue, responses=names.steps_queue, name=name)
    store = NullResultStore()
    return Backend(_brokered(settings, clock, broker, ledger), store, store, broker.when_probed)


def _connect_rabbitmq(
    settings: Settings,
    clock: IReactorTime,
    *,
    claim: Claim | None = None,
    patient: bool = False,
    steps: str | None = None,
) -> RabbitMQBroker:
    where = settings.queue.connection.rabbitmq
    return RabbitMQBroker(
        rabbitmq_address.parse_address(settings.queue.rabbitmq_url or where.url),
        clock,
        random.random,
        prefix=where.prefix,
        seconds=where.timeout_seconds,
        claim=claim,
        patient=patient,
        steps=steps,
    )


def _brokered(
    settings: Settings,
    clock: IReactorTime,
    broker: RabbitMQBroker,
    ledger: Ledger,
    following: Following | None = None,
) -> BrokeredQueue:
    names = settings.queue
    return BrokeredQueue(
        broker,
        ledger,
        clock,
        requests=names.request_queue,
        dead_letters=names.dead_letter_queue,
        lease=names.lease_seconds,
        following=following,
    )


_MAKERS: dict[str, Callable[[Settings, IReactorTime, RunCommit], Backend]] = {
    "sqlite": _sqlite,
    "memory": _memory,
    "redis": _redis,
    "rabbitmq": _rabbitmq,
}
