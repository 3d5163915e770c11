# -*- test-case-name: tests.test_backends -*-
"""The queue and the results in the memory of the process."""

from __future__ import annotations

import os

from twisted.internet.interfaces import IReactorTime

from openhqm.config.model import Settings
from openhqm.memory.queue import MemoryQueue
from openhqm.memory.results import MemoryResults
from openhqm.policy.ids import CorrelationIds
from openhqm.queue.backend import Backend, RunCommit


def make_backend(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> Backend:
    """An empty queue and empty results; ids of another process mean nothing here."""
    ids = CorrelationIds(os.urandom(32))
    store = MemoryResults(clock, ids, settings.cache.ttl_seconds)
    queue = MemoryQueue(
        store,
        clock,
        ids,
        requests=settings.queue.request_queue,
        dead_letters=settings.queue.dead_letter_queue,
        lease=settings.queue.lease_seconds,
        limits=settings.queue.limits.limits,
    )
    return Backend(queue, store, store, limit=queue.limit, own_time=True, endings=store.log)
