"""Sockets in the file system: one that a killed process left behind is no obstacle, and one in use is not taken."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from openhqm.errors import CannotStart
from openhqm.runtime import unix_sockets
from openhqm.runtime.listening import listen
from tests.servers import ROOT

LISTEN = """
import sys
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from openhqm.errors import CannotStart
from openhqm.runtime.listening import listen

sys.stdin.readline()
outcome = []
listen(reactor, Factory(), "", 0, ["unix:" + sys.argv[1]]).addCallbacks(outcome.append, lambda failure: None)
print("listens" if outcome else "refused", flush=True)
sys.stdin.readline()
"""


class Hello(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")
        self.transport.loseConnection()


class UnixSocketsTests(TestCase):
    timeout = 240

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path = Path(os.path.relpath(self.path))  # the path of a socket is at most 108 bytes long

    def leave_socket(self) -> None:
        """What a killed process leaves behind."""
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.path))
            left.listen()

    async def listen(self, options: str = "") -> Any:
        (port,) = await listen(reactor, Factory.forProtocol(Hello), "", 0, [f"unix:{self.path}{options}"])
        self.addCleanup(port.stopListening)
        return port

    async def refusal(self) -> str:
        error: Any = await self.assertFailure(
            listen(reactor, Factory.forProtocol(Hello), "", 0, [f"unix:{self.path}"]), CannotStart
        )
        return str(error)

    def connect(self) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))

    async def test_left_behind(self) -> None:
        """The socket of a killed process is replaced, also where a living process has the pid of the killed one."""
        self.leave_socket()
        os.symlink(str(os.getpid()), f"{self.path}.lock")  # Twisted's lock
        await self.listen(":mode=600")
        self.connect()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    async def test_in_use(self) -> None:
        """A socket on which something listens is not taken, though it accepts nothing, and the error says so."""
        with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
            other.bind(str(self.path))
            other.listen(0)
            waiting.connect(str(self.path))  # the backlog is full
            for _ in range(2):
                self.assertEqual(await self.refusal(), f"cannot listen on {self.path}: another process listens there")
            self.assertTrue(self.path.is_socket())

    async def test_other_files(self) -> None:
        """A file that is no socket stays as it is."""
        self.path.write_text("precious")
        self.assertEqual(await self.refusal(), f"cannot listen on {self.path}: the file there is no socket")
        self.assertEqual(self.path.read_text(), "precious")
        self.path.unlink()
        self.path = Path("no-such-directory/s")
        self.assertIn("No such file", await self.refusal())

    async def test_directory_locked(self) -> None:
        """A lock that another program keeps for itself ends the start with a line, and not never."""
        self.patch(unix_sockets, "LOCK_SECONDS", 0.2)
        descriptor = os.open(self.path.parent, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self.assertEqual(
            await self.refusal(), f"cannot listen on {self.path}: another program holds the lock of its directory"
        )

    def test_at_once(self) -> None:
        """Of processes that start at once over a socket that was left behind, exactly one listens."""
        for _ in range(5):
            self.leave_socket()
            processes = [
                subprocess.Popen(
                    [sys.executable, "-c", LISTEN, str(self.path)],
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for _ in range(3)
            ]
            for process in processes:
                print(file=process.stdin, flush=True)
            said = [process.stdout.readline().strip() for process in processes if process.stdout]
            self.connect()
            for process in processes:
                process.kill()
                process.communicate()
            self.assertEqual(sorted(said), ["listens", "refused", "refused"])
            self.path.unlink()

    async def test_closed(self) -> None:
        """Closing removes the socket, but not another one at its path; and it ends where the path is gone."""
        port = await self.listen()
        await port.stopListening()
        self.assertFalse(self.path.exists())
        port = await self.listen()
        self.path.unlink()
        await port.stopListening()
        port = await self.listen()
        self.path.unlink()
        self.leave_socket()
        await port.stopListening()
        self.assertTrue(self.path.is_socket())
