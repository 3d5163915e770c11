"""What a peer has not taken yet, seen with real sockets."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.send_backlog import unsent


class Backend:
    """A transport as Twisted's are, of which a part was written."""

    dataBuffer = b"abcdef"
    offset = 2
    _tempDataLen = 10

    def __init__(self, connection: socket.socket) -> None:
        self.fileno = connection.fileno


class UnsentTests(SynchronousTestCase):
    """`unsent`"""

    def test_kernel(self) -> None:
        """What the kernel holds counts, and counts less with each piece that the peer takes."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            reader = socket.create_connection(listening.getsockname())
            writer, _ = listening.accept()
        self.addCleanup(writer.close)
        self.addCleanup(reader.close)
        backend = Backend(writer)
        self.assertEqual(unsent(backend), 14)
        writer.setblocking(False)
        try:
            while True:
                writer.send(b"a" * 65536)
        except BlockingIOError:
            pass
        before = unsent(backend)
        self.assertGreater(before, 14)
        reader.settimeout(10)
        while unsent(backend) == before:
            reader.recv(65536)
        self.assertLess(unsent(backend), before)

    def test_anything_else(self) -> None:
        """A transport without a buffer or a socket holds nothing, as far as can be known."""
        self.assertEqual(unsent(object()), 0)
        with socket.socket() as closed:
            backend = Backend(closed)
        self.assertEqual(unsent(backend), 14)
