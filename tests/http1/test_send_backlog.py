"""The bytes that a peer has not received yet, measured with real sockets."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.send_backlog import send_backlog


class FakeTransport:
    """A transport with the attributes of Twisted's, part of whose buffer was written to the socket."""

    dataBuffer = b"abcdef"
    offset = 2
    _tempDataLen = 10

    def __init__(self, connection: socket.socket) -> None:
        self.fileno = connection.fileno


class SendBacklogTests(SynchronousTestCase):
    """`send_backlog`"""

    def test_kernel(self) -> None:
        """Bytes in the kernel's buffer count until the peer receives them."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            reader = socket.create_connection(listening.getsockname())
            writer, _ = listening.accept()
        self.addCleanup(writer.close)
        self.addCleanup(reader.close)
        transport = FakeTransport(writer)
        self.assertEqual(send_backlog(transport), 14)
        writer.setblocking(False)
        try:
            while True:
                writer.send(b"a" * 65536)
        except BlockingIOError:
            pass
        before = send_backlog(transport)
        self.assertGreater(before, 14)
        reader.settimeout(10)
        while send_backlog(transport) == before:
            reader.recv(65536)
        self.assertLess(send_backlog(transport), before)

    def test_without_buffer_or_socket(self) -> None:
        """A transport without a buffer or an open socket has no backlog that could be seen."""
        self.assertEqual(send_backlog(object()), 0)
        with socket.socket() as closed:
            transport = FakeTransport(closed)
        self.assertEqual(send_backlog(transport), 14)
