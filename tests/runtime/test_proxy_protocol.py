"""The PROXY protocol: what a trusted proxy says is believed, and nothing that looks like it."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.proxying import TrustedProxies
from openhqm.runtime.proxy_protocol import (
    HEAD_SECONDS,
    MOST_BYTES,
    Head,
    ProxiedAddress,
    ProxyProtocolFactory,
    read_head,
)
from tests.authorities import SERVER, Authority
from tests.servers import Server

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def binary(command: int = 0x21, family: int = 0x11, body: bytes | None = None, more: bytes = b"") -> bytes:
    """A head of version 2."""
    if body is None:
        body = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 4711, 443)
    body += more
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


SIX = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(15) + b"\x01" + struct.pack("!HH", 4711, 443)
GOOD = (
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n", ("192.0.2.7", 4711)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ("255.255.255.255", 65535)),
    (b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n", ("2001:db8::7", 4711)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n", None),
    (binary(), ("192.0.2.7", 4711)),
    (binary(more=b"\x04\x00\x03abc"), ("192.0.2.7", 4711)),
    (binary(family=0x21, body=SIX), ("2001:db8::7", 4711)),
    (binary(command=0x20), None),
    (binary(command=0x20, family=0x00, body=b""), None),
    (binary(family=0x00, body=b""), None),
    (binary(family=0x31, body=b"/run/x".ljust(216, b"\0")), None),
)
WRONG = (
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"proxy TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
    b"PROXY  TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 5\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
    b"PROXY TCP4 192.0.2.7\t198.51.100.1 4711 443\r\n",
    b"PROXY TCP4 localhost 198.51.100.1 4711 443\r\n",
    b"PROXY TCP4 192.0.2.07 198.51.100.1 4711 443\r\n",
    b"PROXY TCP4 192.0.2 198.51.100.1 4711 443\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.256 4711 443\r\n",
    b"PROXY TCP4 ::1 ::1 4711 443\r\n",
    b"PROXY TCP6 192.0.2.7 192.0.2.7 4711 443\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 04711 443\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n",
    b"PROXY UDP4 192.0.2.7 198.51.100.1 4711 443\r\n",
    b"PROXY UNKNOWN\x00\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n" + b"a" * 100,
    b"PROXY UNKNOWN " + b"a" * 200 + b"\r\n",
    binary(command=0x22),
    binary(command=0x11),
    binary(family=0x12),
    binary(family=0x41),
    binary(family=0x32),
    binary(body=b"cut"),
    binary(family=0x21),
    SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MOST_BYTES),
)


class ReadTests(SynchronousTestCase):
    """`read_head`"""

    def test_good(self) -> None:
        """Both versions are read, however they are cut, and what follows is left."""
        for head, source in GOOD:
            self.assertEqual(read_head(head + b"GET /"), Head(source, len(head)))
            for length in range(len(head)):
                self.assertIsNone(read_head(head[:length]), head)

    def test_wrong(self) -> None:
        """Everything else is refused, at the latest when it is there."""
        for head in WRONG:
            self.assertRaises(ValueError, read_head, head)

    @given(st.binary(max_size=200))
    def test_anything(self, data: bytes) -> None:
        """No bytes break it, behind either beginning."""
        for begin in (b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00\x0c"):
            try:
                head = read_head(begin + data)
            except ValueError:
                continue
            self.assertTrue(head is None or head.size <= len(begin + data))


class Recorder(Protocol):
    """What stands behind."""

    def __init__(self) -> None:
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data


class FactoryTests(SynchronousTestCase):
    """`ProxyProtocolFactory`"""

    def connect(self, host: str | None) -> StringTransport:
        self.clock = Clock()
        self.built: list[Recorder] = []

        def build() -> Recorder:
            self.built.append(Recorder())
            return self.built[-1]

        factory = ProxyProtocolFactory(Factory.forProtocol(build), TrustedProxies(["192.0.2.0/24"]), self.clock)
        address = UNIXAddress(b"/a") if host is None else IPv4Address("TCP", host, 1)
        transport = StringTransport(peerAddress=address)
        transport.protocol = factory.buildProtocol(address)
        transport.protocol.makeConnection(transport)
        return transport

    def test_trusted(self) -> None:
        """The word of a trusted proxy is the peer's address, byte by byte as well, and the rest goes on."""
        for step in (1, 1000):
            transport = self.connect("192.0.2.1")
            text = b"PROXY TCP4 127.0.0.1 198.51.100.1 4711 443\r\nGET /"
            for start in range(0, len(text), step):
                transport.protocol.dataReceived(text[start : start + step])
            self.assertEqual(transport.getPeer(), ProxiedAddress("127.0.0.1", 4711))
            self.assertEqual(self.built[0].data, b"GET /")
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_own_connection(self) -> None:
        """A connection of the proxy itself has the proxy's address, and came through a proxy all the same."""
        transport = self.connect("192.0.2.1")
        transport.protocol.dataReceived(binary(command=0x20))
        self.assertEqual(transport.getPeer(), ProxiedAddress("192.0.2.1", 1))

    def test_refused(self) -> None:
        """A trusted proxy that says something else, or nothing, is cut off before anything else is built."""
        for data in (b"GET / HTTP/1.1\r\n", b""):
            transport = self.connect("192.0.2.1")
            if data:
                transport.protocol.dataReceived(data)
            else:
                self.clock.advance(HEAD_SECONDS)
            self.assertTrue(transport.disconnected or transport.disconnecting)
            self.assertEqual(self.built, [])

    def test_untrusted(self) -> None:
        """What an other peer sends is not read here."""
        for host in ("198.51.100.1", None):
            transport = self.connect(host)
            transport.protocol.dataReceived(GOOD[0][0])
            self.assertEqual(self.built[0].data, GOOD[0][0])
            self.assertNotIsInstance(transport.getPeer(), ProxiedAddress)


class ProcessTests(SynchronousTestCase):
    """A process behind a proxy"""

    def test_curl(self) -> None:
        """A client behind a trusted proxy is served, over TLS as well, and is no program on this host."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        authority = Authority(directory)
        cert, key = authority.issue("server", "DNS:localhost", usage=[SERVER])
        for tls in ({}, {"cert": str(cert), "key": str(key)}):
            server = Server(
                directory,
                OPENHQM_QUEUE__TYPE="memory",
                OPENHQM_SERVER__PROXY_PROTOCOL="true",
                OPENHQM_SERVER__TRUSTED_PROXIES='["127.0.0.1"]',
                OPENHQM_SERVER__TLS=json.dumps(tls),
            )
            server.launch()
            self.addCleanup(server.stop)
            scheme = "https" if tls else "http"

            def curl(path: str, *arguments: str, scheme: str = scheme, port: int = server.port) -> str:
                command = ["curl", "-sS", "-i", "--max-time", "20", "--cacert", str(authority.ca), *arguments]
                url = f"{scheme}://localhost:{port}{path}"
                done = subprocess.run([*command, url], capture_output=True, text=True, timeout=60)
                return done.stdout

            server.until(lambda: "200 OK" in curl("/health/ready", "--haproxy-protocol"), "not ready")
            self.assertIn("came through a proxy", curl("/api/v1/dead-letters", "--haproxy-protocol"))
            self.assertEqual(curl("/health/live"), "")
            self.assertIn("see server.proxy_protocol", server.log())
            server.stop()

    def test_forged(self) -> None:
        """Where the peer is not trusted, a PROXY line is no request, and what follows is not served."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        server = Server(
            directory,
            OPENHQM_QUEUE__TYPE="memory",
            OPENHQM_SERVER__PROXY_PROTOCOL="true",
            OPENHQM_SERVER__TRUSTED_PROXIES='["192.0.2.1"]',
        )
        server.start()
        self.addCleanup(server.stop)
        for head in (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", binary()):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
                connection.sendall(head + b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
            self.assertIn(answer[:12], (b"HTTP/1.1 400", b"HTTP/1.1 501"))
            self.assertEqual(answer.count(b"HTTP/1.1"), 1)
