"""A damaged, missing or unwritable embedded file: refused at the start in one line, or made not ready while it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from unittest import SkipTest

import apsw
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import CannotStart, NotDurable
from openhqm.sqlite.file import PROBE_SECONDS, SqliteFile
from openhqm.sqlite.queue_rows import QueueRows
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.soundness import check_pages
from openhqm.sqlite.sql import fetch_all


class SoundnessTests(SynchronousTestCase):
    """`SqliteFile`, on files that were damaged, removed or made unwritable"""

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="openhqm-sound-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.path = os.path.join(self.directory, "openhqm.db")
        self.clock = Clock()

    def file(self) -> SqliteFile:
        def run_commit(commit: Any) -> Deferred[None]:
            try:
                commit()
            except apsw.Error:
                done: Deferred[None] = Deferred()
                done.errback()
                return done
            return succeed(None)

        file = SqliteFile(self.directory, self.clock, run_commit)
        file.open()
        self.addCleanup(file._release_lock)
        return file

    def put(self, file: SqliteFile, name: str, value: Any = 1) -> Deferred[Any]:
        done = file.write(lambda connection: connection.execute("INSERT INTO meta VALUES (?, ?)", (name, value)))
        self.clock.advance(0)
        return done

    def filled(self) -> None:
        """Leave a file with some hundred pages behind."""
        file = self.file()
        self.filled_in(file)
        self.successResultOf(self.closed(file))

    def closed(self, file: SqliteFile) -> Deferred[None]:
        done = file.close()
        self.clock.advance(0)
        return done

    def spoil(self, first: int, last: int) -> None:
        """Write noise over these pages."""
        with open(self.path, "r+b") as file:
            for page in range(first, last):
                file.seek(page * 4096)
                file.write(b"\x5a" * 4096)

    def refused(self) -> str:
        return str(self.assertRaises(CannotStart, self.file))

    def test_malformed(self) -> None:
        """A database with damaged pages is not opened, and the error says what to do."""
        self.filled()
        self.spoil(2, 60)
        error = self.refused()
        self.assertIn(f"{self.path} is damaged", error)
        self.assertIn("backup", error)

    def test_no_database(self) -> None:
        """A file that is none is not opened, and not changed."""
        self.filled()
        self.spoil(0, 2)
        before = Path(self.path).read_bytes()
        self.assertIn("not a database", self.refused())
        self.assertEqual(Path(self.path).read_bytes(), before)

    def test_empty(self) -> None:
        """A file of 0 bytes was a database, or was to be one: it is not taken for a new installation."""
        self.filled()
        os.truncate(self.path, 0)
        self.assertIn("has 0 bytes", self.refused())

    def test_log_alone(self) -> None:
        """A log whose database is gone is not given to a new one."""
        Path(f"{self.path}-wal").write_bytes(b"x")
        self.assertIn("is missing", self.refused())
        self.assertFalse(os.path.exists(self.path))

    def test_torn(self) -> None:
        """A log that was torn at any byte is cut there, which is counted and said; what was whole before it is kept."""
        file = self.file()
        written: list[tuple[str, int]] = []
        for number in range(5):
            self.successResultOf(self.put(file, f"name {number}", b"x" * 9000))
            written.append((f"name {number}", os.path.getsize(f"{self.path}-wal")))
        saved = f"{self.directory}-saved"
        shutil.copytree(self.directory, saved)
        self.addCleanup(shutil.rmtree, saved)
        whole = written[-1][1]
        frame = 4096 + 24
        for size in (*range(whole, written[0][1], -1711), 33, 31, 1, 0):
            for spoiled in (False, True):
                said: list[Any] = []
                shutil.rmtree(self.directory)
                shutil.copytree(saved, self.directory)
                with open(f"{self.path}-wal", "r+b") as log:
                    if spoiled and size > 5000:  # as a disk leaves it that has room for a file, and not its content
                        log.seek(size - 3000)
                        log.write(b"\x5a" * min(2000, whole - size + 2000))
                    else:
                        log.truncate(size)
                globalLogPublisher.addObserver(said.append)
                try:
                    opened = self.file()
                finally:
                    globalLogPublisher.removeObserver(said.append)
                names = {name for (name,) in fetch_all(opened.reader, "SELECT name FROM meta WHERE name LIKE 'name%'")}
                reach = size - 3000 if spoiled and size > 5000 else size
                expected = {name for name, end in written if end <= reach}
                self.assertEqual(names, expected)
                torn = [event["frames"] for event in said if "frames" in event]
                ends = [end for _, end in written if end <= reach]
                if ends and reach > ends[-1] + frame:
                    self.assertEqual(len(torn), 1, (size, spoiled))
                if size == whole and not spoiled:
                    self.assertEqual(torn, [])
                opened.connection.close()
                opened.reader.close()
                opened._release_lock()

    def test_killed_at_the_first_start(self) -> None:
        """What a first start left behind half done does not stop the next one."""
        Path(f"{self.path}.new").write_bytes(b"half")
        self.successResultOf(self.put(self.file(), "a"))
        self.assertEqual(os.listdir(self.directory).count("openhqm.db.new"), 0)

    def test_bounded(self) -> None:
        """The check ends when its time is over, also where it has not found the damage yet."""
        self.filled()
        connection = apsw.Connection(self.path)
        self.addCleanup(connection.close)
        check_pages(connection, self.path, seconds=-1.0)

    def test_read_later(self) -> None:
        """Damage that is read while the file is used makes it unavailable; it is said once, and nothing is written."""
        said: list[Any] = []
        globalLogPublisher.addObserver(said.append)
        self.addCleanup(globalLogPublisher.removeObserver, said.append)
        file = self.file()
        self.filled_in(file)
        file.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.spoil(1, 60)
        file.reader.pragma("cache_size", 0)
        for _ in range(3):
            self.assertRaises(NotDurable, fetch_all, file.reader, "SELECT name, value FROM meta ORDER BY name")
        self.assertIn("is damaged", file.unavailable_reason or "")
        self.assertIn("is damaged", self.failureResultOf(self.put(file, "b"), NotDurable).getErrorMessage())
        self.assertEqual(len(said), 1)

    def filled_in(self, file: SqliteFile) -> None:
        for number in range(100):
            self.successResultOf(self.put(file, f"name {number}", b"x" * 3000))

    def test_removed(self) -> None:
        """Nothing is accepted into files that were removed, moved or replaced. Moved back, they are used again."""
        for name in ("openhqm.db", "openhqm.db-wal"):
            file = self.file()
            self.successResultOf(self.put(file, f"before {name}"))
            path = os.path.join(self.directory, name)
            os.rename(path, f"{path}.away")
            for _ in range(3):
                refused = self.failureResultOf(self.put(file, f"lost {name}"), NotDurable)
                self.assertIn(f"{path} was removed or moved", refused.getErrorMessage())
            self.assertIn("was removed", file.unavailable_reason or "")
            open(path, "wb").close()
            self.failureResultOf(self.put(file, f"lost {name}"), NotDurable)
            os.rename(f"{path}.away", path)
            self.clock.advance(PROBE_SECONDS)
            self.clock.advance(0)
            self.assertIsNone(file.unavailable_reason)
            self.assertNotIn((f"lost {name}",), fetch_all(file.reader, "SELECT name FROM meta"))
            self.successResultOf(self.closed(file))

    def test_new_queue_on_a_full_disk(self) -> None:
        """A queue that has no rows yet cannot be made on a full disk: the request is refused as not durable."""
        file = self.file()
        (pages,) = fetch_all(file.connection, "PRAGMA page_count")[0]
        file.connection.execute(f"PRAGMA max_page_count={pages}")
        store = SqliteResults(file, self.clock, 60)
        with self.assertRaises(NotDurable) as caught:
            for number in range(1000):
                QueueRows(file, store, f"queue {number} " + "x" * 500)
        self.assertIn("full", str(caught.exception))


class UnwritableTests(SynchronousTestCase):
    """A start on a disk that is full, or mounted for reading only"""

    def setUp(self) -> None:
        self.disk = tempfile.mkdtemp(prefix="openhqm-disk-")
        self.addCleanup(shutil.rmtree, self.disk, ignore_errors=True)
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", self.disk]
        if subprocess.run(mount, capture_output=True).returncode:
            if os.environ.get("CI"):
                raise AssertionError("a small disk cannot be mounted")
            raise SkipTest("a small disk can only be mounted by root")
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk])

    def opened(self) -> SqliteFile:
        file = SqliteFile(os.path.join(self.disk, "data"), Clock(), lambda commit: succeed(None))
        file.open()
        self.addCleanup(file._release_lock)
        return file

    def test_full(self) -> None:
        """The first start on a full disk is one error; with room again, the next start succeeds."""
        filler = os.path.join(self.disk, "filler")
        with open(filler, "wb", buffering=0) as file, self.assertRaises(OSError):
            while True:
                file.write(b"x" * 4096)
        self.assertRaises(CannotStart, self.opened)
        os.remove(filler)
        self.opened()

    def test_read_only(self) -> None:
        """A disk that is mounted for reading only is one error."""
        self.opened().close()
        subprocess.run(["mount", "-o", "remount,ro", self.disk], check=True)
        self.assertIn("Read-only", str(self.assertRaises(CannotStart, self.opened)))
