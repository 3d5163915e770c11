"""Clients that read their answers too slowly, with real sockets: what they cost, and how long."""

from __future__ import annotations

import errno
import re
import shutil
import socket
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.backpressure import STALL_SECONDS
from tests.servers import Server

LARGE = 10_000_000
MOST_UNSENT = 64 << 20
JOBS = f"""
from openhqm.workers.handlers import Response

def large(work):
    return Response(body=b"x" * {LARGE})
"""


class SlowReaderTests(SynchronousTestCase):
    """60 clients that take 600 bytes each 5 seconds of a reply of 10 MB"""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "jobs.py").write_text(JOBS)
        self.server = Server(
            self.directory,
            OPENHQM_WORKER__HANDLERS='{"large": "jobs:large"}',
            OPENHQM_SERVER__MAX_UNSENT_BYTES=str(MOST_UNSENT),
        )
        self.server.start()
        self.addCleanup(self.server.stop)

    def memory(self, which: str) -> int:
        """The resident memory of the server, or its peak, in bytes."""
        assert self.server.process is not None
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        found = re.search(rf"{which}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) << 10

    def reader(self, path: str) -> socket.socket:
        client = socket.socket()
        self.addCleanup(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", self.server.port))
        client.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        return client

    def test_bounded(self) -> None:
        """Their memory is bounded, each is cut off or told to ask again, and another client gets all of its reply."""
        done = self.server.submit(None, operation="large")
        self.server.response(done)
        path = f"/api/v1/response/{done}/body"
        self.assertEqual(len(self.server.ask("GET", path)[2]), LARGE)
        before = self.memory("VmRSS")
        readers = [self.reader(path) for _ in range(60)]
        began, refused, whole = time.monotonic(), 0, 0
        for reader in list(readers):
            if reader.recv(600).startswith(b"HTTP/1.1 503 "):
                refused += 1
                readers.remove(reader)
        self.assertEqual(len(readers) + refused, 60)
        self.assertGreater(refused, 30)
        while readers and time.monotonic() - began < STALL_SECONDS + 15:
            status, _, body = self.server.ask("GET", path)
            whole += status == 200
            self.assertIn((status, len(body) == LARGE), ((200, True), (503, False)))
            time.sleep(5)  # their rate
            for reader in list(readers):
                if reader.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET:
                    readers.remove(reader)
                else:
                    self.assertTrue(reader.recv(600))
        self.assertEqual(readers, [])
        self.assertGreater(whole, 1)
        self.assertLess(self.memory("VmHWM") - before, 2 * MOST_UNSENT)  # beside what waits, replies are being read
