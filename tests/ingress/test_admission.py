"""Bodies that are refused are not read, and not asked for."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.api_keys import Key, Role
from tests.ingress.test_access import made, write
from tests.servers import Server

BODY = b'{"payload":"%b"}' % (b"x" * 1000)
LONG = 5_000_000
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class AdmissionTests(SynchronousTestCase):
    """A server whose callers need keys and may submit three requests, and those of a tenant some bytes"""

    def setUp(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.secret, key = made("a", frozenset({Role.SUBMIT}))
        self.reader, other = made("b", frozenset({Role.READ}))
        keys = [Key(each.id, each.digest, "acme", each.roles, each.created) for each in (key, other)]
        write(directory / "keys.json", *keys)
        self.server = Server(
            directory,
            OPENHQM_QUEUE__TYPE="memory",
            OPENHQM_AUTH__TYPE="api_key",
            OPENHQM_AUTH__KEYS_FILE=str(directory / "keys.json"),
            OPENHQM_RATE_LIMIT=json.dumps({"requests": 3, "per_seconds": 3600}),
            OPENHQM_CORS__ORIGINS='["https://app.example.com"]',
            **self.settings(),
        )
        self.server.start()
        self.addCleanup(self.server.stop)

    def settings(self) -> dict[str, str]:
        return {}

    def begin(self, *fields: str, secret: str | None = None, path: str = "/api/v1/submit") -> Any:
        """A connection that has sent a head, and nothing of a body."""
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=10)
        self.addCleanup(connection.close)
        lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *fields]
        if secret is not None:
            lines.append(f"OpenHQM-Key: {secret}")
        connection.sendall("\r\n".join((*lines, "", "")).encode())
        return connection

    def read(self, connection: Any) -> bytes:
        """The next bytes."""
        found: bytes = connection.recv(65536)
        return found

    def all(self, connection: Any) -> bytes:
        """What comes until the server closes its side."""
        found = b""
        while piece := connection.recv(65536):
            found += piece
        return found

    def assertRefused(self, connection: Any, status: int) -> bytes:
        """The server answers with that status, has asked for no body, and closes the connection."""
        answer = self.all(connection)
        self.assertTrue(answer.startswith(b"HTTP/1.1 %d " % status), answer)
        self.assertIn(b"\r\nConnection: close\r\n", answer)
        return answer

    def ways(self, size: int = LONG) -> tuple[tuple[str, ...], ...]:
        """The ways to announce a body that is still to come."""
        return (
            ("Expect: 100-continue", f"Content-Length: {len(BODY)}"),
            ("Expect: 100-continue", "Transfer-Encoding: chunked"),
            (f"Content-Length: {size}",),
            ("Transfer-Encoding: chunked",),
        )

    def test_who(self) -> None:
        """Without a key, with a wrong one, or with one for something else, no byte of a body is asked for."""
        for path in ("/api/v1/submit", "/api/v1/batch", "/nowhere"):
            for fields in self.ways():
                for secret, status in ((None, 401), ("ohqm_" + "0" * 49, 401), (self.reader, 403)):
                    answer = self.assertRefused(self.begin(*fields, secret=secret, path=path), status)
                    self.assertIs(b"\r\nWWW-Authenticate: " in answer, status == 401)

    def test_a_page(self) -> None:
        """A page of an origin that may call can read the refusal."""
        origin = "Origin: https://app.example.com"
        answer = self.assertRefused(self.begin("Expect: 100-continue", f"Content-Length: {len(BODY)}", origin), 401)
        self.assertIn(b"Access-Control-Allow-Origin: https://app.example.com", answer)

    def test_how_long(self) -> None:
        """Nor of one that is too long."""
        fields = "Expect: 100-continue", f"Content-Length: {1 << 30}"
        self.assertRefused(self.begin(*fields, secret=self.secret), 413)

    def test_how_often(self) -> None:
        """A body that is asked for has been counted, once; beyond the limit none is asked for."""
        for left in (2, 1):
            connection = self.begin("Expect: 100-continue", f"Content-Length: {len(BODY)}", secret=self.secret)
            self.assertEqual(self.read(connection), CONTINUE)
            connection.sendall(BODY)
            answer = self.read(connection)
            self.assertTrue(answer.startswith(b"HTTP/1.1 202 "), answer)
            self.assertIn(b'RateLimit: "default";r=%d;' % left, answer)
        connection = self.begin("Transfer-Encoding: chunked", secret=self.secret)
        connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
        self.assertIn(b'RateLimit: "default";r=0;', self.read(connection))
        for path in ("/api/v1/submit", "/api/v1/batch"):
            for fields in self.ways():
                answer = self.assertRefused(self.begin(*fields, secret=self.secret, path=path), 429)
                self.assertIn(b"\r\nRetry-After: ", answer)

    def test_batch(self) -> None:
        """The requests of a batch count when they are known: the first with the head, the others behind it."""
        body = json.dumps({"requests": [{"payload": 1}] * 2}).encode()
        connection = self.begin(
            "Expect: 100-continue", f"Content-Length: {len(body)}", secret=self.secret, path="/api/v1/batch"
        )
        self.assertEqual(self.read(connection), CONTINUE)
        connection.sendall(body)
        self.assertIn(b'ratelimit: "default";r=1;', self.read(connection).lower())

    def test_event_stream(self) -> None:
        """One that is served by a route is counted once, too."""
        fields = "Expect: 100-continue", f"Content-Length: {len(BODY)}", "Accept: text/event-stream"
        connection = self.begin(*fields, secret=self.secret)
        self.assertEqual(self.read(connection), CONTINUE)
        connection.sendall(BODY)
        self.assertIn(b'ratelimit: "default";r=2;', self.read(connection).lower())


class TenantTests(AdmissionTests):
    """The same, with a limit of the tenant"""

    def settings(self) -> dict[str, str]:
        limits = {"bytes_per_second": 20_000}
        return {"OPENHQM_TENANTS": json.dumps([{"name": "acme", "limits": limits}])}

    def test_bytes(self) -> None:
        """A body counts with the length that is announced, before it comes, and the next one has to wait."""
        body = b'{"payload":"%b"}' % (b"x" * 400_000)
        connection = self.begin("Expect: 100-continue", f"Content-Length: {len(body)}", secret=self.secret)
        self.assertEqual(self.read(connection), CONTINUE)
        answer = self.assertRefused(self.begin(*self.ways()[0], secret=self.secret), 429)
        self.assertIn(b"bytes in a second", answer)
        connection.sendall(body)
        self.assertTrue(self.read(connection).startswith(b"HTTP/1.1 202 "))
        answer = self.assertRefused(self.begin("Transfer-Encoding: chunked", secret=self.secret), 429)
        self.assertIn(b"bytes in a second", answer)
