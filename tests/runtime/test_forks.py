"""Which files are open in a process that was forked."""

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

from openhqm.runtime.forks import FORKED_EXIT, keep_from_forks
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

RETURNS = """
import os
import sys

def handle(work):
    if work.payload == "nothing":
        return "alive"
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if work.payload == "raises":
        raise ValueError("in the new process")
    if work.payload == "exits":
        sys.exit(3)
    return "from the new process"
"""


class KeepFromForksTests(SynchronousTestCase):
    """`keep_from_forks`"""

    def pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        for end in ends:
            self.addCleanup(os.close, end)
        return ends

    def in_fork(self, check: Callable[[], bool]) -> bool:
        """The result of ``check`` in a process that is forked for it."""
        pid = os.fork()
        if not pid:
            code = 2
            try:
                code = int(check())
            finally:
                os._exit(code)  # the forked process must not run the tests
        return {0: False, 1: True}[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

    def test_closed_in_the_fork(self) -> None:
        """The descriptors are closed in the forked process. They, and all others, stay open in this one."""
        kept, other = self.pipe(), self.pipe()
        keep_from_forks(kept)
        self.assertEqual(
            [self.in_fork(lambda end=end: is_open(end)) for end in (*kept, *other)], [False] * 2 + [True] * 2
        )
        self.assertTrue(all(map(is_open, (*kept, *other))))

    def test_reused_descriptor(self) -> None:
        """A descriptor that stands for another file by the time of the fork stays open."""
        kept, other = self.pipe(), self.pipe()
        keep_from_forks(kept)
        os.dup2(other[0], kept[0])
        self.assertTrue(self.in_fork(lambda: is_open(kept[0])))

    def test_closed_before(self) -> None:
        """A descriptor that was closed before the fork does no harm, and the others are closed."""
        kept, other = self.pipe(), os.pipe()
        keep_from_forks((*other, *kept))
        for end in other:
            os.close(end)
        self.assertFalse(self.in_fork(lambda: is_open(kept[0]) or is_open(kept[1])))

    def test_executed_program(self) -> None:
        """A program that is executed gets the descriptors that are passed to it."""
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


class HandlerTests(SynchronousTestCase):
    """A process with an embedded file, whose handler forks"""

    def test_restart(self) -> None:
        """The forked process outlives the gateway, and keeps neither the file nor the port from the next gateway."""
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
        os.kill(pid, 0)  # the forked process still runs

    def test_returns(self) -> None:
        """A forked process that returns from the handler ends there. It settles nothing, and keeps nothing locked."""
        for executor in ("reactor", "thread", "asyncio", "process"):
            directory = Path(tempfile.mkdtemp(prefix="openhqm-forks-"))
            self.addCleanup(shutil.rmtree, directory)
            kind = "async def" if executor == "asyncio" else "def"
            (directory / "jobs.py").write_text(RETURNS.replace("def", kind))
            server = Server(directory, OPENHQM_WORKER__HANDLER="jobs:handle", OPENHQM_WORKER__EXECUTOR=executor)
            server.start()
            self.addCleanup(server.stop)
            for name in ("returns", "raises", "exits"):
                self.assertEqual(server.response(server.submit(name))["result"], FORKED_EXIT, (executor, name))
            self.assertEqual(server.response(server.submit("nothing"))["result"], "alive")
            self.assertEqual(server.stop(), 0)
