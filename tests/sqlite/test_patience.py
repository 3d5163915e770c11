"""Another program has locked the embedded file: what waits for it does so in a thread, and the reactor goes on."""

from __future__ import annotations

import shutil
import tempfile
import time
from threading import Event
from typing import Any

import apsw
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.trial.unittest import TestCase

from openhqm.errors import NotDurable
from openhqm.runtime.threads import SerialThread
from openhqm.sqlite import patience
from openhqm.sqlite.file import PROBE_SECONDS, SqliteFile
from openhqm.sqlite.sql import fetch_one

PROBES = 10
"""Within so many looks of the file at its lock it is noticed that it has gone."""
LONGEST = 0.5
"""How long the reactor may stand still on a machine that does other work, too. SQLite would wait for a second."""


class PatienceTests(TestCase):
    """`SqliteFile` on a real reactor, beside another connection"""

    timeout = 240

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="openhqm-patience-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.commits = SerialThread(reactor, "commit")
        self.addCleanup(self.commits.stop)
        self.file = SqliteFile(self.directory, reactor, self.commits.run)
        self.file.open()
        self.addCleanup(self.file.close)
        self.longest = 0.0
        self.beat_at = time.monotonic()
        self.beating = LoopingCall(self.beat)
        self.beating.start(0.01)
        self.addCleanup(self.beating.stop)

    def beat(self) -> None:
        now = time.monotonic()
        self.longest, self.beat_at = max(self.longest, now - self.beat_at), now

    def lock(self, *statements: str) -> apsw.Connection:
        other = apsw.Connection(f"{self.directory}/openhqm.db")
        self.addCleanup(other.close)
        for statement in statements:
            other.execute(statement)
        return other

    def put(self, name: str) -> Deferred[Any]:
        return self.file.write(lambda connection: connection.execute("INSERT INTO meta VALUES (?, 1)", (name,)))

    async def test_short(self) -> None:
        """Writes wait for a short lock, in one transaction with those that come while they do; reads do not wait."""
        await self.put("first")
        other = self.lock("BEGIN IMMEDIATE")
        writes = [self.put(name) for name in "ab"]
        await deferLater(reactor, 0.2)
        writes.append(self.put("c"))
        self.assertEqual(fetch_one(self.file.reader, "SELECT count(*) FROM meta WHERE value = 1"), (1,))
        await deferLater(reactor, 0.6)
        self.assertFalse(any(each.called for each in writes))
        other.execute("ROLLBACK")
        await gatherResults(writes)
        self.assertLess(self.longest, LONGEST)

    async def test_long(self) -> None:
        """Behind a longer one they fail, and those that follow at once, until the lock is gone."""
        self.patch(patience, "LOCK_SECONDS", 0.5)
        await self.put("first")
        other = self.lock("BEGIN EXCLUSIVE")
        began = time.monotonic()
        await self.assertFailure(self.put("a"), NotDurable)
        self.assertLess(time.monotonic() - began, 2)
        self.assertEqual(self.file.unavailable_reason, "the database cannot be written: another program has locked it")
        self.assertEqual(fetch_one(self.file.reader, "SELECT count(*) FROM meta WHERE value = 1"), (1,))
        began = time.monotonic()
        await self.assertFailure(self.put("at once"), NotDurable)
        self.assertLess(time.monotonic() - began, 0.3)
        other.execute("ROLLBACK")
        deadline = time.monotonic() + PROBES * PROBE_SECONDS
        while self.file.unavailable_reason is not None and time.monotonic() < deadline:
            await deferLater(reactor, 0.05)
        self.assertIsNone(self.file.unavailable_reason)
        await self.put("a")
        self.assertLess(self.longest, LONGEST)

    async def test_at_once(self) -> None:
        """What is written at once waits for a commit that is under way, and is refused while a transaction begins."""
        await self.put("first")
        committing = Event()

        def hook() -> bool:
            if not committing.is_set():
                committing.set()
                time.sleep(0.8)  # a slow disk
            return False

        self.file.connection.set_commit_hook(hook)
        written = self.put("a")
        while not committing.is_set():
            await deferLater(reactor, 0.01)
        self.file.write_now(lambda connection: connection.execute("INSERT INTO meta VALUES ('now', 1)"))
        await written
        self.assertEqual(fetch_one(self.file.reader, "SELECT count(*) FROM meta WHERE value = 1"), (3,))
        other = self.lock("BEGIN IMMEDIATE")
        written = self.put("b")
        await deferLater(reactor, 0.1)
        self.assertRaises(NotDurable, self.file.write_now, lambda connection: connection.execute("DELETE FROM meta"))
        other.execute("ROLLBACK")
        await written
        self.file.write_now(lambda connection: connection.execute("INSERT INTO meta VALUES ('later', 1)"))

    async def test_reads(self) -> None:
        """Where a lock keeps a read away, its caller is told at once, and the file counts as usable."""
        await self.put("first")
        for connection in (self.file.connection, self.file.reader):
            self.assertEqual(connection.execute("PRAGMA busy_timeout").fetchone(), (0,))
        error = self.file.reader.failed(apsw.BusyError("locked"))
        self.assertEqual((error.retry_after, self.file.unavailable_reason), (1, None))
