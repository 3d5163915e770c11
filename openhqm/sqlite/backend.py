# -*- test-case-name: tests.test_backends -*-
"""The embedded file as a whole backend, and as the result store beside a broker."""

from __future__ import annotations

import os

from twisted.internet.interfaces import IReactorTime

from openhqm.config.model import Settings
from openhqm.queue.backend import Backend, Beside, RunCommit, Store
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.sqlite.queue import SqliteQueue
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.settings import SqliteSettings
from openhqm.sqlite.steps import SqliteSteps


def make_backend(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> Backend:
    """The queue and the results in one file."""
    file = _file(settings, clock, run_commit)
    store = SqliteResults(file, clock, settings.cache.ttl_seconds)
    queue = SqliteQueue(
        file,
        store,
        clock,
        requests=settings.queue.request_queue,
        dead_letters=settings.queue.dead_letter_queue,
        lease=settings.queue.lease_seconds,
        limits=settings.queue.limits.limits,
    )
    return Backend(queue, store, store, limit=queue.limit, own_time=True, endings=store.log)


def make_store(settings: Settings, clock: IReactorTime, run_commit: RunCommit, beside: Beside) -> Store[SqliteLedger]:
    """The results and the ledger in one file, which keeps every request: nothing is lost with a broker."""
    file = _file(settings, clock, run_commit)
    results = SqliteResults(file, clock, settings.cache.ttl_seconds)
    limits = settings.queue.limits.limits
    ledger = SqliteLedger(
        file,
        results,
        clock,
        channels=beside.channels,
        reply_channel=beside.reply_channel,
        limits=limits,
        window=beside.window,
    )
    steps = SqliteSteps(file, results, ledger)
    return Store(ledger, results, results, steps=steps, own_time=True, endings=results.log)


def _file(settings: Settings, clock: IReactorTime, run_commit: RunCommit) -> SqliteFile:
    ours = settings.store_of(SqliteSettings)
    keys = [os.path.abspath(path) for path in ours.encryption_key_files]
    return SqliteFile(os.path.abspath(ours.path), clock, run_commit, wait=ours.sync_milliseconds / 1000, key_files=keys)
