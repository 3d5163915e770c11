"""What a process that was forked has, and what it has not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.forks import keep_from_forks
from tests.servers import Server

FORK = """
import os
import signal

def handle(work):
    pid = os.fork()
    while not pid:  # the new process stays until it is killed
        signal.pause()
    return pid
"""


class KeepFromForksTests(SynchronousTestCase):
    """`keep_from_forks`"""

    def pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        for end in ends:
            self.addCleanup(os.close, end)
        return ends

    def in_fork(self, holds: Callable[[], bool]) -> bool:
        """What is so in a process that is forked now."""
        pid = os.fork()
        if not pid:
            code = 2
            try:
                code = int(holds())
            finally:
                os._exit(code)  # and never back into the tests
        return {0: False, 1: True}[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

    def test_closed_there_alone(self) -> None:
        """They are closed in what was forked; here, and whatever else there is, they stay open."""
        kept, other = self.pipe(), self.pipe()
        keep_from_forks(kept)
        self.assertEqual(
            [self.in_fork(lambda end=end: is_open(end)) for end in (*kept, *other)], [False] * 2 + [True] * 2
        )
        self.assertTrue(all(map(is_open, (*kept, *other))))

    def test_number_of_another(self) -> None:
        """A number that means another file by then is not touched."""
        kept, other = self.pipe(), self.pipe()
        keep_from_forks(kept)
        os.dup2(other[0], kept[0])
        self.assertTrue(self.in_fork(lambda: is_open(kept[0])))

    def test_closed_before(self) -> None:
        """One that is closed here already does no harm there, and the others are closed."""
        kept, other = self.pipe(), os.pipe()
        keep_from_forks((*other, *kept))
        for end in other:
            os.close(end)
        self.assertFalse(self.in_fork(lambda: is_open(kept[0]) or is_open(kept[1])))

    def test_executed(self) -> None:
        """A program that is started gets what it is given, these files among them."""
        kept = self.pipe()
        keep_from_forks(kept)
        with subprocess.Popen(
            [sys.executable, "-c", f"import os; os.write({kept[1]}, b'x')"], pass_fds=[kept[1]]
        ) as one:
            self.assertEqual(one.wait(60), 0)
        self.assertEqual(os.read(kept[0], 1), b"x")


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class WholeTests(SynchronousTestCase):
    """One process with the embedded file"""

    def test_started_anew(self) -> None:
        """What a handler has forked outlives the process, and keeps neither file nor port from the next one."""
        directory = Path(tempfile.mkdtemp(prefix="openhqm-forks-"))
        self.addCleanup(shutil.rmtree, directory)
        (directory / "jobs.py").write_text(FORK)
        server = Server(directory, OPENHQM_WORKER__HANDLER="jobs:handle")
        server.start()
        pid = server.response(server.submit(1))["result"]
        self.addCleanup(os.kill, pid, signal.SIGKILL)
        server.kill()
        self.addCleanup(server.stop)
        server.start()
        os.kill(pid, 0)  # it is still there
