"""The backends of this build on a bench: time is a `Clock`, a commit is done at once, a crash forgets everything."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.brokered.queue import BrokeredQueue
from openhqm.interfaces import QueueTraits
from openhqm.memory.queue import MemoryQueue
from openhqm.memory.results import MemoryResults
from openhqm.policy.ids import CorrelationIds
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.sqlite.queue import SqliteQueue
from openhqm.sqlite.results import SqliteResults
from openhqm.testing import DEAD_LETTERS, LEASE, REQUESTS, TTL
from tests.brokered.memory_broker import TRAITS, MemoryBroker, Server

START = 1_000_000.0


def one_turn(clock: Clock) -> None:
    """As one turn of a reactor is: what is due now, and nothing that is asked for meanwhile."""
    for call in [call for call in clock.calls if call.getTime() <= clock.seconds()]:
        if call.active():
            clock.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)


class ClockedBench:
    """What both have in common: time passes when it is told to."""

    queue: Any
    store: Any

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.open()

    def open(self) -> None:
        raise AssertionError("each bench opens its own")

    def now(self) -> float:
        return self.clock.seconds()

    def turn(self) -> None:
        """Whatever wants to run at once, runs; and what that leads to."""
        for _ in range(6):
            self.clock.advance(0)

    def done(self, deferred: Deferred[Any]) -> Deferred[Any]:
        self.turn()
        return deferred

    def pass_time(self, seconds: float) -> Deferred[None]:
        end = self.clock.seconds() + seconds
        self.turn()
        while self.clock.seconds() < end:
            self.clock.advance(min(1.0, end - self.clock.seconds()))
            self.turn()
        return succeed(None)

    def crash(self) -> Deferred[None]:
        # Nothing of the old process may act any more: its calls die with it, the time goes on.
        now = self.clock.seconds()
        self.forget()
        self.clock = Clock()
        self.clock.advance(now)
        self.open()
        return succeed(None)

    def forget(self) -> None:
        pass

    def close(self) -> Deferred[None]:
        self.forget()
        return succeed(None)


class SqliteBench(ClockedBench):
    """The embedded file, in memory-backed storage where the machine has some: what is tested is not the disk."""

    def __init__(self, ttl: float = TTL) -> None:
        shared = "/dev/shm"
        self.ttl = ttl
        self.directory = tempfile.mkdtemp(prefix="openhqm-", dir=shared if os.path.isdir(shared) else None)
        super().__init__()

    def run_commit(self, commit: Callable[[], None]) -> Deferred[None]:
        """Commit at once. ``stall``: the process will be killed before it has, or before it learns that it has."""
        if self.stall != "before":
            commit()
        return Deferred() if self.stall else succeed(None)

    def make_queue(self) -> Any:
        return SqliteQueue(self.file, self.store, self.clock, requests=REQUESTS, dead_letters=DEAD_LETTERS, lease=LEASE)

    def open(self) -> None:
        self.stall = ""
        self.file = SqliteFile(self.directory, self.clock, lambda commit: maybeDeferred(self.run_commit, commit))
        self.store = SqliteResults(self.file, self.clock, self.ttl)
        self.queue = self.make_queue()
        started = self.queue.start()
        failures: list[Any] = []
        started.addErrback(failures.append)
        if failures:
            failures[0].raiseException()
        self.store.start()

    def forget(self) -> None:
        """As a killed process leaves it: nothing is committed, nothing is closed in order, the lock is free."""
        self.file.connection.close()
        self.file.reader.close()
        self.file._release_lock()

    def close(self) -> Deferred[None]:
        self.forget()
        shutil.rmtree(self.directory)
        return succeed(None)


class BrokeredBench(SqliteBench):
    """The embedded file as the store, and a broker in memory that survives whatever becomes of the process."""

    def __init__(self, traits: QueueTraits = TRAITS) -> None:
        self.server = Server()
        self.traits = traits
        super().__init__()

    def make_queue(self) -> Any:
        self.broker = MemoryBroker(self.server, self.clock, self.traits)
        self.ledger = SqliteLedger(self.file, self.store, self.clock, requests=REQUESTS, dead_letters=DEAD_LETTERS)
        return BrokeredQueue(
            self.broker, self.ledger, self.clock, requests=REQUESTS, dead_letters=DEAD_LETTERS, lease=LEASE
        )

    def forget(self) -> None:
        super().forget()
        self.broker.crash()


class MemoryBench(ClockedBench):
    def open(self) -> None:
        ids = CorrelationIds(os.urandom(32))
        self.store = MemoryResults(self.clock, ids, TTL)
        self.queue = MemoryQueue(self.store, self.clock, ids, requests=REQUESTS, dead_letters=DEAD_LETTERS, lease=LEASE)
        self.store.start()


def sqlite_bench(case: TestCase | SynchronousTestCase) -> SqliteBench:
    return SqliteBench()


def brokered_bench(case: TestCase | SynchronousTestCase) -> BrokeredBench:
    return BrokeredBench()


def memory_bench(case: TestCase | SynchronousTestCase) -> MemoryBench:
    return MemoryBench()
