"""The documented kinds of endpoints, with a whole server: TLS, a UNIX socket, and a socket from systemd."""

from __future__ import annotations

import datetime
import http.client
import json
import shutil
import socket
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from tests.servers import Server


class Overlaid(http.client.HTTPConnection):
    """An HTTP client over a socket that is connected already."""

    def __init__(self, server: At, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.server = server

    def connect(self) -> None:
        self.sock = self.server.connect(self.timeout or 20)


class At(Server):
    """A server that listens on one endpoint."""

    def connection(self, timeout: float = 20) -> http.client.HTTPConnection:
        return Overlaid(self, timeout)

    def connect(self, timeout: float) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)


class Unix(At):
    """A server behind a UNIX socket."""

    def connect(self, timeout: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(str(self.directory / "s"))
        return connection


class Encrypted(At):
    """A server behind TLS."""

    def connect(self, timeout: float) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.directory / "cert.pem"))
        plain = super().connect(timeout)
        # An end without a word is an error here: it may be anybody who has cut the answer off.
        return context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)


def certificate(directory: Path) -> None:
    """Write ``key.pem`` and ``cert.pem``, for localhost and valid today."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def all_of(connection: socket.socket, request: bytes) -> bytes:
    """Everything that the server sends for a request, up to the end of the connection."""
    if request:
        connection.sendall(request)
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    connection.close()
    return b"".join(pieces)


class Endpoints(SynchronousTestCase):
    """A server on each kind of endpoint"""

    def start(self, kind: type[At], endpoint: str, before: str = "", **environment: str) -> At:
        directory = Path(tempfile.mkdtemp(prefix="openhqm-endpoint-"))
        self.addCleanup(shutil.rmtree, directory)
        server = kind(directory, before, OPENHQM_QUEUE__TYPE="memory", **environment)
        certificate(directory)
        endpoint = endpoint.format(directory=directory, port=server.port)
        server.environment["OPENHQM_SERVER__ENDPOINTS"] = json.dumps([endpoint])
        server.before = server.before.format(port=server.port)
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        server.start()
        return server

    def lives(self, server: At) -> None:
        """Submit, wait, read and stream: on the fast path and by twisted.web, with requests in one piece and in
        several.
        """
        correlation_id = server.submit({"a": ["b"] * 20_000})
        self.assertEqual(server.response(correlation_id)["result"], {"a": ["b"] * 20_000})
        self.assertEqual(server.ask("GET", f"/api/v1/status/{correlation_id}")[0], 200)
        self.assertIn(b"event: completed", server.ask("GET", f"/api/v1/events/{correlation_id}")[2])

    def closes(self, server: At) -> None:
        """The end of a connection is announced, behind a response of either kind and behind a refusal."""
        for target, status in (
            (b"/health", b"200"),
            (b"/api/v1/status/00000000-0000-4000-8000-000000000000", b"404"),
            (b"/\\", b"400"),
        ):
            answer = all_of(server.connect(20), b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target)
            self.assertTrue(answer.startswith(b"HTTP/1.1 " + status), answer)
            self.assertTrue(answer.endswith(b"}"), answer)

    def test_unix(self) -> None:
        """``unix:`` needs no authentication setting, because the socket is local."""
        server = self.start(Unix, "unix:{directory}/s")
        self.lives(server)
        self.closes(server)
        self.assertEqual(server.stop(), 0)

    def test_tls(self) -> None:
        """``ssl:`` speaks TLS with its certificate from the first byte to the closing alert."""
        server = self.start(
            Encrypted,
            "ssl:{port}:interface=127.0.0.1:privateKey={directory}/key.pem:certKey={directory}/cert.pem",
        )
        self.lives(server)
        self.closes(server)
        self.assertEqual(server.stop(), 0)

    def test_systemd(self) -> None:
        """``systemd:`` uses the inherited socket (sd_listen_fds(3))."""
        before = (
            "import os, socket\n"
            "listening = socket.create_server(('127.0.0.1', {port}))\n"
            "os.dup2(listening.detach(), 3)\n"
            "os.environ.update(LISTEN_FDS='1', LISTEN_FDNAMES='http', LISTEN_PID=str(os.getpid()))"
        )
        server = self.start(At, "systemd:domain=INET:index=0", before, OPENHQM_AUTH__TYPE="none")
        self.lives(server)
        self.closes(server)
        self.assertEqual(server.stop(), 0)

    def test_no_systemd(self) -> None:
        """Without such a socket, the process exits with one line that says so."""
        directory = Path(tempfile.mkdtemp(prefix="openhqm-endpoint-"))
        self.addCleanup(shutil.rmtree, directory)
        endpoints = json.dumps(["systemd:domain=INET:index=0"])
        server = Server(directory, OPENHQM_SERVER__ENDPOINTS=endpoints, OPENHQM_AUTH__TYPE="none")
        code, out, err = server.run()
        self.assertEqual((code, "Traceback" in out + err), (1, False), out + err)
        self.assertIn("openhqm: server.endpoints: there is no such socket", err)

    def test_half_closed(self) -> None:
        """A client that closes its side gets the responses to its requests, over a real socket too."""
        server = self.start(At, "tcp:{port}:interface=127.0.0.1")
        body = b'{"payload": 1, "metadata": {"delay": 0.5}}'
        request = b"POST /api/v1/submit HTTP/1.1\r\nHost: x\r\nPrefer: wait=10\r\n"
        request += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        connection = server.connect(20)
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = all_of(connection, b"")
        self.assertIn(b"Connection: close", answer)
        self.assertIn(b'"COMPLETED"', answer)
