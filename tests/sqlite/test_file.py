"""The embedded file: which writes share a commit, which fail alone, and what a full disk does."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

import apsw
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import CannotStart, FileInUse, NotDurable
from openhqm.sqlite.file import MOST_WAITING, PROBE_SECONDS, SqliteFile


class SqliteFileTests(SynchronousTestCase):
    """`SqliteFile`, on a real file, with commits that end when the test says so"""

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="openhqm-file-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.clock = Clock()
        self.commits: list[Deferred[None]] = []

    def file(self, held: bool = False, wait: float = 0.0) -> SqliteFile:
        """``held``: a commit is done at once, and its completion is for the test to tell."""

        def run_commit(commit: Any) -> Deferred[None]:
            try:
                commit()
            except apsw.Error:
                done: Deferred[None] = Deferred()
                done.errback()
                return done
            self.commits.append(Deferred())
            return self.commits[-1] if held else succeed(None)

        file = SqliteFile(self.directory, self.clock, run_commit, wait)
        file.open()
        for close in (file._release_lock, file.connection.close, file.reader.close):
            self.addCleanup(close)
        return file

    def put(self, file: SqliteFile, name: str, value: Any = 1) -> Deferred[Any]:
        return file.write(lambda connection: connection.execute("INSERT INTO meta VALUES (?, ?)", (name, value)))

    def names(self, file: SqliteFile) -> list[str]:
        return [name for (name,) in file.reader.execute("SELECT name FROM meta WHERE name <> 'secret'")]

    def test_one_commit(self) -> None:
        """Writes that are asked for at the same time share one commit, and none is answered before it."""
        file = self.file(held=True)
        first = [self.put(file, name) for name in "abc"]
        self.clock.advance(0)
        later = [self.put(file, name) for name in "de"]
        self.assertEqual(len(self.commits), 1)
        for waiting in first:
            self.assertNoResult(waiting)
        self.commits[0].callback(None)
        for waiting in first:
            self.successResultOf(waiting)
        self.clock.advance(0)
        for waiting in later:
            self.assertNoResult(waiting)
        self.commits[1].callback(None)
        for waiting in later:
            self.successResultOf(waiting)
        self.assertEqual(self.names(file), list("abcde"))

    def test_waits_for_more(self) -> None:
        """Where commits wait, writes of that time share one, also those that come while another one is under way."""
        file = self.file(held=True, wait=0.05)
        first = self.put(file, "a")
        self.clock.advance(0.04)
        second = self.put(file, "b")
        self.assertEqual(self.commits, [])
        self.clock.advance(0.01)
        self.assertEqual(len(self.commits), 1)
        third = self.put(file, "c")
        self.assertNoResult(first)
        self.commits[0].callback(None)
        for done in (first, second):
            self.successResultOf(done)
        self.clock.advance(0.04)
        fourth = self.put(file, "d")
        self.assertEqual(len(self.commits), 1)
        self.clock.advance(0.02)
        self.commits[1].callback(None)
        for done in (third, fourth):
            self.successResultOf(done)

    def test_closed_while_a_commit_waits(self) -> None:
        """What was asked for before the file is closed is written."""
        file = self.file(wait=0.05)
        put = self.put(file, "a")
        closed = file.close()
        self.clock.advance(0.05)
        self.successResultOf(put)
        self.clock.advance(0.05)
        self.successResultOf(closed)

    def test_fails_alone(self) -> None:
        """An operation that raises fails by itself; the others in its transaction are kept."""
        file = self.file()
        calls: list[str] = []

        def fails(connection: apsw.Connection) -> None:
            connection.execute("INSERT INTO meta VALUES ('bad', 1)")
            file.after_commit(lambda: calls.append("bad"))
            raise KeyError("its own affair")

        good = self.put(file, "a")
        bad = file.write(fails)
        also_good = self.put(file, "b")
        self.clock.advance(0)
        self.clock.advance(0)
        self.successResultOf(good)
        self.successResultOf(also_good)
        self.failureResultOf(bad, KeyError)
        self.assertEqual((self.names(file), calls), (["a", "b"], []))

    def test_after_commit(self) -> None:
        """Calls for after the commit come after it, and before the writes are answered."""
        file = self.file(held=True)
        order: list[str] = []

        def operation(connection: apsw.Connection) -> None:
            file.after_commit(lambda: order.append("after"))

        file.write(operation).addCallback(lambda result: order.append("answered"))
        self.clock.advance(0)
        self.assertEqual(order, [])
        self.commits[0].callback(None)
        self.assertEqual(order, ["after", "answered"])

    def test_planned_once(self) -> None:
        """SQLite plans a statement once, whatever values it is given, to write and to read."""
        file = self.file()
        for connection in (file.connection, file.reader):
            self.assertEqual(connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1), 1)

    def test_full(self) -> None:
        """On a full disk each write fails, reading goes on, and a probe finds out when there is room."""
        file = self.file()
        self.put(file, "a")
        self.clock.advance(0)
        (pages,) = file.connection.execute("PRAGMA page_count").fetchone()  # type: ignore[misc]
        file.connection.execute(f"PRAGMA max_page_count={pages}")
        refused = [self.put(file, name, b"x" * 50_000) for name in "bc"]
        self.clock.advance(0)
        for waiting in refused:
            self.assertIn("full", self.failureResultOf(waiting, NotDurable).getErrorMessage())
        self.assertIn("full", file.unavailable_reason or "")
        self.assertEqual(self.names(file), ["a"])
        file.connection.execute("PRAGMA max_page_count=100000")
        self.clock.advance(PROBE_SECONDS)
        self.clock.advance(0)
        self.assertIsNone(file.unavailable_reason)
        self.successResultOf(self.turned(self.put(file, "d")))

    def turned(self, deferred: Deferred[Any]) -> Deferred[Any]:
        self.clock.advance(0)
        return deferred

    def test_bounded(self) -> None:
        """The number of writes that wait for a disk is bounded."""
        file = self.file(held=True)
        for _ in range(MOST_WAITING):
            file.write(lambda connection: None)
        self.failureResultOf(file.write(lambda connection: None), NotDurable)

    def test_close(self) -> None:
        """Closing commits the writes that wait, and refuses later ones."""
        file = self.file()
        waiting = self.put(file, "a")
        closed = file.close()
        self.failureResultOf(self.put(file, "b"), NotDurable)
        self.clock.advance(0)
        self.clock.advance(0)
        self.successResultOf(waiting)
        self.successResultOf(closed)
        self.assertEqual(self.names(self.file()), ["a"])

    def test_close_from_within(self) -> None:
        """Closing is possible from where a write is answered."""
        file = self.file()
        closed: list[Any] = []
        self.put(file, "a").addCallback(lambda result: file.close().addBoth(closed.append))
        self.clock.pump([0] * 5)
        self.assertEqual(closed, [None])

    def test_locked(self) -> None:
        """A second process is told which one has the file."""
        self.file()
        error = self.assertRaises(FileInUse, SqliteFile(self.directory, self.clock, lambda commit: succeed(None)).open)
        self.assertEqual(error.holder, str(os.getpid()))

    def test_another_layout(self) -> None:
        """A file of another layout, older or newer, is refused, with what to do about it."""
        for version in (1, 99):
            file = self.file()
            file.connection.execute(f"PRAGMA user_version={version}")
            file.close()
            error = str(self.assertRaises(CannotStart, self.file))
            self.assertIn(f"layout {version}", error)
            self.assertIn("move the file away", error)
            os.remove(os.path.join(self.directory, "openhqm.db"))

    def test_pragmas(self) -> None:
        """The file is written ahead, and every commit is synced."""
        file = self.file()
        self.assertEqual(file.connection.execute("PRAGMA journal_mode").fetchone(), ("wal",))
        self.assertEqual(file.connection.execute("PRAGMA synchronous").fetchone(), (2,))

    def test_no_place(self) -> None:
        """A directory that cannot be made is one clear line."""
        file = SqliteFile("/proc/nowhere", self.clock, lambda commit: succeed(None))
        self.assertIn("/proc/nowhere", str(self.assertRaises(CannotStart, file.open)))
