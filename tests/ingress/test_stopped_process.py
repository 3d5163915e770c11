"""A process that does not run for a while, with real sockets: its clients are not to blame."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
import time

from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.request_reader import HEAD_SECONDS
from tests.servers import Server


class StoppedProcessTests(SynchronousTestCase):
    """SIGSTOP, and SIGCONT later than the deadlines of the connections"""

    def test_answered(self) -> None:
        """A connection from before, and one that came in the meantime, get their answers."""
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        server = Server(directory)
        server.start()
        self.addCleanup(server.stop)
        assert server.process is not None
        ask = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        clients = [self.connect(server.port) for _ in range(3)]
        clients[1].sendall(ask[:10])
        connected = server.ask("GET", "/metrics")[2]
        self.assertIn(b"openhqm_connections 4.0", connected)  # the server has accepted them
        server.process.send_signal(signal.SIGSTOP)
        try:
            clients[0].sendall(ask)
            clients[1].sendall(ask[10:])
            clients.append(self.connect(server.port))
            clients[3].sendall(ask)
            time.sleep(HEAD_SECONDS + 2)  # how long the process is stopped
        finally:
            server.process.send_signal(signal.SIGCONT)
        clients[2].sendall(ask)
        for client in clients:
            self.assertTrue(client.recv(100).startswith(b"HTTP/1.1 200 "))

    def connect(self, port: int) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port))
        self.addCleanup(client.close)
        client.settimeout(20)
        return client
