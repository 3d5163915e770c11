"""What systemd and the log are told of a process, and when."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.readiness import LOOK_SECONDS, Readiness
from openhqm.runtime.systemd import Systemd
from tests.servers import Server


class SystemdCase(SynchronousTestCase):
    """Tests with a socket that stands for systemd's."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-systemd-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = str(self.directory / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.bind(self.path)
        self.socket.settimeout(20)

    def told(self) -> str:
        return self.socket.recv(4096).decode()


class SystemdTests(SystemdCase):
    """`Systemd`"""

    def test_messages(self) -> None:
        """Each message is one datagram, as sd_notify has it; a reload carries the time."""
        systemd = Systemd({"NOTIFY_SOCKET": self.path}, Clock())
        systemd.ready()
        self.assertEqual(self.told(), "READY=1")
        systemd.reloading()
        self.assertTrue(re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", self.told()))
        systemd.stopping()
        self.assertEqual(self.told(), "STOPPING=1")

    def test_watchdog(self) -> None:
        """The watchdog is told twice in its time from the first READY on, until the process has stopped."""
        clock = Clock()
        variables = {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
        systemd = Systemd(variables, clock)
        self.assertEqual((variables, clock.getDelayedCalls()), ({}, []))
        systemd.ready()
        systemd.ready()
        clock.pump([1.5] * 2)
        self.assertEqual([self.told() for _ in range(5)], ["READY=1", "WATCHDOG=1", "READY=1", *["WATCHDOG=1"] * 2])
        systemd.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_not_for_us(self) -> None:
        """Without systemd, or with another process's watchdog, nothing is sent. A socket that is gone is no error."""
        clock = Clock()
        Systemd({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, clock).ready()
        Systemd({"NOTIFY_SOCKET": str(self.directory / "gone")}, clock).ready()
        self.assertEqual(clock.getDelayedCalls(), [])


class ReadinessTests(SynchronousTestCase):
    """`Readiness`"""

    def test_waits(self) -> None:
        """Ready is said once, when nothing is waited for any more."""
        clock, reasons, said = Clock(), ["Redis is away", "Redis is away", "it is loading"], []
        readiness = Readiness(clock, lambda: reasons.pop(0) if reasons else None, lambda: said.append("ready"))
        readiness.start()
        clock.pump([LOOK_SECONDS] * 2)
        self.assertEqual(said, [])
        clock.pump([LOOK_SECONDS] * 5)
        self.assertEqual((said, clock.getDelayedCalls()), (["ready"], []))

    def test_stopped(self) -> None:
        """A process that stops before it is ready says nothing any more."""
        clock, said = Clock(), []
        readiness = Readiness(clock, lambda: "Redis is away", lambda: said.append("ready"))
        readiness.start()
        readiness.stop()
        clock.advance(60)
        self.assertEqual(said, [])


class ServerTests(SystemdCase):
    """A whole process under systemd"""

    def test_life(self) -> None:
        """It tells when it is ready, reloads and stops; the log names its URL, queue and handler."""
        server = Server(self.directory, NOTIFY_SOCKET=self.path)
        server.start()
        self.addCleanup(server.stop)
        self.assertEqual(self.told(), "READY=1")
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        self.assertIn("RELOADING=1", self.told())
        self.assertEqual(self.told(), "READY=1")
        self.assertEqual(server.stop(), 0)
        self.assertEqual(self.told(), "STOPPING=1")
        self.assertRegex(server.log(), r"is ready: http://127\.0\.0\.1:\d+; queue sqlite, durable; answered by echo")

    def test_not_ready(self) -> None:
        """While Redis cannot be reached the log says what is waited for, and systemd is not told READY."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"redis://127.0.0.1:{taken.getsockname()[1]}/0"
            server = Server(
                self.directory, NOTIFY_SOCKET=self.path, OPENHQM_QUEUE__TYPE="redis", OPENHQM_QUEUE__REDIS_URL=url
            )
            server.launch()
            self.addCleanup(server.stop)
            server.until(lambda: "is not ready yet: " in server.log(), "it does not say what it waits for")
            self.assertNotIn("is ready:", server.log())
            self.assertEqual(server.stop(), 0)
        self.assertEqual(self.told(), "STOPPING=1")
