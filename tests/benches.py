"""The backends of this build on a `Clock`: a commit is done at once, and a crash drops what was not committed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.brokered.queue import BrokeredQueue
from openhqm.interfaces import BrokerTraits
from openhqm.memory.queue import MemoryQueue
from openhqm.memory.results import MemoryResults
from openhqm.policy.channels import Channels
from openhqm.policy.ids import CorrelationIds
from openhqm.policy.limits import NO_LIMITS
from openhqm.queue.ledger import window_of
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.sqlite.queue import SqliteQueue
from openhqm.sqlite.results import SqliteResults
from openhqm.testing import DEAD_LETTERS, FORMS, LEASE, REQUESTS, TTL, FakeBroker, FakeServer

START = 1_000_000.0


def one_turn(clock: Clock) -> None:
    """Run the calls of one reactor turn: those that are due now, and none that they schedule."""
    for call in [call for call in clock.calls if call.getTime() <= clock.seconds()]:
        if call.active():
            clock.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)


class ClockedBench:
    """The common part: time passes when the test says so."""

    queue: Any
    store: Any
    limits = NO_LIMITS
    step = 1.0
    """How far time goes at once, in seconds."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.open()

    def open(self) -> None:
        raise AssertionError("each bench opens its own")

    def now(self) -> float:
        return self.clock.seconds()

    def turn(self) -> None:
        """Run what is due now, and what that schedules for now."""
        for _ in range(6):
            self.clock.advance(0)

    def done(self, deferred: Deferred[Any]) -> Deferred[Any]:
        self.turn()
        return deferred

    def pass_time(self, seconds: float) -> Deferred[None]:
        end = self.clock.seconds() + seconds
        self.turn()
        while self.clock.seconds() < end:
            self.clock.advance(min(self.step, end - self.clock.seconds()))
            self.turn()
        return succeed(None)

    def crash(self) -> Deferred[None]:
        # Delayed calls of the old process end with it, and the time goes on.
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
    """The SQLite backend. Its file is in memory where the system has a file system for that: the disk is not tested."""

    def __init__(self, ttl: float = TTL) -> None:
        shared = "/dev/shm"
        self.ttl = ttl
        self.directory = tempfile.mkdtemp(prefix="openhqm-", dir=shared if os.path.isdir(shared) else None)
        super().__init__()

    def key_files(self) -> Sequence[str]:
        """What the file is encrypted with."""
        return ()

    def run_commit(self, commit: Callable[[], None]) -> Deferred[None]:
        """Commit at once. ``stall`` simulates a process that is killed before the commit, or before it learns of it."""
        if self.stall != "before":
            commit()
        return Deferred() if self.stall else succeed(None)

    def make_queue(self) -> Any:
        return SqliteQueue(
            self.file,
            self.store,
            self.clock,
            requests=REQUESTS,
            dead_letters=DEAD_LETTERS,
            lease=LEASE,
            limits=self.limits,
        )

    def open(self) -> None:
        self.stall = ""
        self.file = SqliteFile(
            self.directory,
            self.clock,
            lambda commit: maybeDeferred(self.run_commit, commit),
            key_files=self.key_files(),
        )
        self.store = SqliteResults(self.file, self.clock, self.ttl)
        self.queue = self.make_queue()
        started = self.queue.start()
        failures: list[Any] = []
        started.addErrback(failures.append)
        if failures:
            failures[0].raiseException()
        self.store.start()

    def forget(self) -> None:
        """Leave the file as a killed process does: nothing is committed, and the lock is released."""
        self.file.connection.close()
        self.file.reader.close()
        self.file._release_lock()

    def close(self) -> Deferred[None]:
        self.forget()
        shutil.rmtree(self.directory)
        return succeed(None)


CHANNELS = Channels(REQUESTS)


class BrokeredBench(SqliteBench):
    """The embedded file as the ledger, and a broker in memory that survives whatever becomes of the process."""

    def __init__(self, traits: BrokerTraits | None = None, ttl: float = TTL, *, journaled: bool = False) -> None:
        self.traits = traits or FORMS["amqp"]
        self.journaled = journaled
        self.server = FakeServer(self.traits)
        if self.traits.lease_seconds is not None:
            self.step = min(1.0, self.traits.lease_seconds / 10)
        if not self.traits.makes_channels:
            for name in (REQUESTS, f"{REQUESTS}.billing"):
                for channel in CHANNELS.names(name):
                    self.server.provide(channel)
        super().__init__(ttl)

    def make_queue(self) -> Any:
        self.broker = FakeBroker(self.server, self.clock, self.traits)
        self.ledger = SqliteLedger(
            self.file,
            self.store,
            self.clock,
            channels=CHANNELS,
            limits=self.limits,
            window=window_of(self.traits.keeps),
        )
        return BrokeredQueue(
            self.broker,
            self.ledger,
            self.clock,
            channels=CHANNELS,
            dead_letters=DEAD_LETTERS,
            lease=LEASE,
            journaled=self.journaled,
        )

    def forget(self) -> None:
        super().forget()
        self.broker.crash()


class MemoryBench(ClockedBench):
    def open(self) -> None:
        ids = CorrelationIds(os.urandom(32))
        self.store = MemoryResults(self.clock, ids, TTL)
        self.queue = MemoryQueue(
            self.store,
            self.clock,
            ids,
            requests=REQUESTS,
            dead_letters=DEAD_LETTERS,
            lease=LEASE,
            limits=self.limits,
        )
        self.store.start()


class EncryptedBench(SqliteBench):
    """The SQLite backend whose file is encrypted."""

    def key_files(self) -> Sequence[str]:
        path = os.path.join(self.directory, "file.key")
        if not os.path.exists(path):
            with open(path, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(os.urandom(32).hex())
        return [path]


def encrypted_bench(case: TestCase | SynchronousTestCase) -> EncryptedBench:
    return EncryptedBench()


def sqlite_bench(case: TestCase | SynchronousTestCase) -> SqliteBench:
    return SqliteBench()


def brokered_bench(case: TestCase | SynchronousTestCase) -> BrokeredBench:
    return BrokeredBench()


def memory_bench(case: TestCase | SynchronousTestCase) -> MemoryBench:
    return MemoryBench()
