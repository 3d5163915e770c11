"""What counts as a change of a directory, and when it is told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime import watching
from openhqm.runtime.watching import DirectoryWatch


class DirectoryWatchTests(SynchronousTestCase):
    """`DirectoryWatch`, which looks when the test says so"""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        (self.directory / "package").mkdir(parents=True)
        self.file = self.directory / "jobs.py"
        self.file.write_text("1")
        self.told = 0
        self.watch = DirectoryWatch(str(self.directory), self.tell)

    def tell(self) -> None:
        self.told += 1

    def looks(self, *told: int) -> None:
        """Look as often, and expect that so many changes have been told after each time."""
        for number in told:
            self.watch.look()
            self.assertEqual(self.told, number)

    def test_once(self) -> None:
        """A change is told once, when the file has stayed as it is between two looks: an editor may still write."""
        self.looks(0, 0)
        self.file.write_text("12")
        self.looks(0)
        self.file.write_text("123")
        self.looks(0, 1, 1, 1)

    def test_each_kind(self) -> None:
        """A new file, a removed one, one that takes the place of another, and one in a package are changes."""
        new = self.directory / "package" / "new.py"
        new.write_text("1")
        self.looks(0, 1)
        status = self.file.stat()
        other = self.directory / ".other"
        other.write_text("2")
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.rename(other, self.file)
        self.looks(1, 2)
        new.unlink()
        self.looks(2, 3)
        shutil.rmtree(self.directory)
        self.looks(3, 4)
        self.directory.mkdir()
        self.file.write_text("1")
        self.looks(4, 5)

    def test_exchanged_by_the_kubelet(self) -> None:
        """A ConfigMap is a directory of links, whose target is exchanged in one step."""
        for version in ("..1", "..2"):
            (self.directory / version).mkdir()
            (self.directory / version / "a.py").write_text(version)
        (self.directory / "..data").symlink_to("..1")
        (self.directory / "a.py").symlink_to("..data/a.py")
        self.looks(0, 1)
        (self.directory / "..new").symlink_to("..2")
        os.rename(self.directory / "..new", self.directory / "..data")
        self.looks(1, 2)

    def test_others(self) -> None:
        """The files that a process writes itself, what is hidden, and what Python compiles are no changes."""
        for name in ("openhqm.db-wal", "log", ".jobs.py.swp", ".git/config.py", "package/__pycache__/jobs.pyc"):
            path = self.directory / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("1")
        self.looks(0, 0)

    def test_too_many(self) -> None:
        """No more files are looked at than the bound says."""
        self.patch(watching, "MOST_FILES", 1)
        (self.directory / "later.py").write_text("1")
        self.looks(0, 0)
