# -*- test-case-name: tests.test_backends -*-
"""Redis as a whole backend, and as the result store beside a broker.

The client is imported when Redis is configured, and not before.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from openhqm.config.model import Settings
from openhqm.queue.backend import Backend, Beside, RunCommit, Store
from openhqm.redis.address import parse_address
from openhqm.redis.driver import check_installed
from openhqm.redis.settings import RedisSettings
from openhqm.redis.taken import Taken

if TYPE_CHECKING:
    from openhqm.redis.connection import Redis
    from openhqm.redis.ledger import RedisLedger


def make_backend(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> Backend:
    """The queue and the results in one Redis, which other programs reach, too.

    `ConfigurationError` where the packages are not installed.
    """
    from openhqm.redis.queue import RedisQueue
    from openhqm.redis.results import RedisResults

    check_installed()
    names, ttl = settings.queue, settings.cache.ttl_seconds
    redis = _connect(settings, clock)
    store = RedisResults(redis, ttl)
    queue = RedisQueue(
        redis,
        requests=names.request_queue,
        dead_letters=names.dead_letter_queue,
        ttl=ttl,
        lease=names.lease_seconds,
        limits=names.limits.limits,
    )

    store.sweeps.extend(queue.sweeps)

    return Backend(
        queue, store, store, redis.when_probed, limit=queue.limit, endings=store.log, count_taken=Taken(redis)
    )


def make_store(settings: Settings, clock: IReactorTime, run_commit: RunCommit, beside: Beside) -> Store[RedisLedger]:
    """The results and the ledger in one Redis.

    `ConfigurationError` where the packages are not installed.
    """
    from openhqm.redis.ledger import RedisLedger
    from openhqm.redis.results import RedisResults

    check_installed("cache.type")
    redis, ttl = _connect(settings, clock), settings.cache.ttl_seconds
    results = RedisResults(redis, ttl)
    ledger = RedisLedger(
        redis,
        channels=beside.channels,
        dead_letters=settings.queue.dead_letter_queue,
        ttl=ttl,
        lost_after=beside.lost_after,
        limits=settings.queue.limits.limits,
        window=beside.window,
    )
    results.sweeps.extend(ledger.sweeps)
    return Store(ledger, results, results, redis.when_probed, endings=results.log, count_taken=Taken(redis))


def _connect(settings: Settings, clock: IReactorTime) -> Redis:
    from openhqm.redis.connection import Redis

    ours = settings.store_of(RedisSettings)
    return Redis(parse_address(ours.url), ours.key_prefix, clock, random.random, seconds=ours.timeout_seconds)
