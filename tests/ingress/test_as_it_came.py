"""What an application behind the sidecar gets of a request, and a client of its answer, straight and queued."""

from __future__ import annotations

import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.ingress.test_sidecar import Upstream, body_of, head_of, length_of
from tests.servers import Server

QUEUED = b"Prefer: respond-async, wait=10\r\n"
TEXT = b"Content-Type: text/plain\r\n"
# Name -> method, target, further header lines, and body. All of them must arrive as they stand here.
REQUESTS: dict[str, tuple[bytes, bytes, bytes, bytes]] = {
    "GET": (b"GET", b"/", b"", b""),
    "GET with content": (b"GET", b"/search", TEXT, b"what"),
    "DELETE with content": (b"DELETE", b"/", TEXT, b"what"),
    "POST": (b"POST", b"/", TEXT, bytes(range(256))),
    "POST without content": (b"POST", b"/", b"", b""),
    "empty parameters": (b"GET", b"/a;", b"", b""),
    "empty parameters before a query": (b"GET", b"/a;?b;", b"", b""),
    "empty query": (b"GET", b"/a?", b"", b""),
    "empty query of the root": (b"GET", b"/?", b"", b""),
    "two slashes": (b"GET", b"//a", b"", b""),
    "only slashes": (b"GET", b"////", b"", b""),
    "dots": (b"GET", b"/a/../b/./c/%2e%2e/", b"", b""),
    "escapes": (b"GET", b"/%7Euser/%2F%2f/%ff?a=%00", b"", b""),
    "braces": (b"GET", b"/s?f={a|b}", b"", b""),
    "a percent sign": (b"GET", b"/?d=50%", b"", b""),
    "a percent sign in the path": (b"GET", b"/50%/a", b"", b""),
    "other characters": (b"GET", b"/?q=a`b^c\\d\"<>'", b"", b""),
    "a URL in the query": (b"GET", b"/?u=http://b.example//c?d#e", b"", b""),
    "a colon": (b"GET", b"/a:b@c//d", b"", b""),
    "asterisk": (b"OPTIONS", b"*", b"", b""),
    "a method of WebDAV": (b"PROPFIND", b"/", b"Depth: 1\r\n", b"<propfind/>"),
    "a method of one's own": (b"Brew", b"/", TEXT, b"FOO / HTTP/1.1"),
    "a method of another protocol": (b"SETUP", b"/", b"", b""),
    "a method with a hyphen": (b"M-SEARCH", b"/", b"", b""),
    "UTF-8 in a field": (b"GET", b"/", b"X-Name: Jos\xc3\xa9\r\n", b""),
    "Latin-1 in a field": (b"GET", b"/", b"X-Name: Jos\xe9\r\n", b""),
    "every byte of a field": (b"GET", b"/", b"X-Name: a" + bytes(range(128, 256)) + b"\r\n", b""),
}
NOT_COMPARED = {
    b"prefer",
    b"openhqm-correlation-id",
    b"openhqm-attempt",
    b"openhqm-max-attempts",
    b"openhqm-last-attempt",
}
NOT_COMPARED |= {b"openhqm-deadline", b"openhqm-complete-token", b"idempotency-key", b"connection", b"content-length"}
ANSWER = b"Content-Type: text/plain\r\nX-Name: Jos\xc3\xa9 \xe9\r\nX_Name: a\r\nDate: today\r\n"
ANSWER += b"Connection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nconnection: X-Other\r\nX-Other: 1\r\n"


def answer(connection: socket.socket) -> None:
    """Answer a request with its own bytes; one to HEAD, and one for ``/304``, without a body."""
    rest = b""
    while True:
        head, rest = head_of(connection, rest)
        body, rest = body_of(connection, head, rest)
        got = head + b"\r\n\r\n" + body
        status = b"304 Not Modified" if b" /304 " in head else b"404 Not Found" if b" /404 " in head else b"200 OK"
        bodiless = head.startswith(b"HEAD ") or status.startswith(b"304")
        connection.sendall(
            b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, ANSWER, len(got), b"" if bodiless else got)
        )


class AsItCameTests(SynchronousTestCase):
    """A whole process in front of an application that answers with the request that it got"""

    def setUp(self) -> None:
        upstream = Upstream(answer)
        self.addCleanup(upstream.close)
        directory = Path(self.mktemp())
        directory.mkdir()
        self.server = Server(
            directory,
            OPENHQM_PROXY__SIDECAR__ENABLED="true",
            OPENHQM_PROXY__SIDECAR__UPSTREAM=upstream.url,
            OPENHQM_SERVER__TRUSTED_PROXIES='["127.0.0.0/8"]',
        )
        self.server.start()
        self.addCleanup(self.server.stop)

    def ask(self, method: bytes, target: bytes, fields: bytes, body: bytes = b"") -> tuple[bytes, bytes]:
        """Head and body of the answer."""
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as connection:
            connection.sendall(b"%b %b HTTP/1.1\r\nHost: shop\r\n%b%b\r\n%b" % (method, target, fields, length, body))
            head, rest = head_of(connection)
            status = int(head.split(b" ")[1])
            if method == b"HEAD" or status == 304:
                return head, rest
            found, rest = body_of(connection, head, rest)
            self.assertEqual(rest, b"")
            return head, found

    def got(self, method: bytes, target: bytes, fields: bytes, body: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
        """Request line, fields and body that the application got."""
        head, answered = self.ask(method, target, fields, body)
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "), (target, head, answered))
        head, _, content = answered.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        pairs = [each.split(b": ", 1) for each in lines]
        return line, {name.lower(): value for name, value in pairs}, content

    def test_requests(self) -> None:
        """Method, target, fields and body arrive as they were sent, on both ways."""
        for name, (method, target, fields, body) in REQUESTS.items():
            ways = {}
            for way, more in (("straight", b""), ("queued", QUEUED)):
                line, found, content = self.got(method, target, fields + more, body)
                self.assertEqual((line, content), (b"%b %b HTTP/1.1" % (method, target), body), (name, way))
                for sent in fields.split(b"\r\n")[:-1]:
                    key, value = sent.split(b": ", 1)
                    self.assertEqual(found[key.lower()], value, (name, way))
                self.assertEqual(b"openhqm-attempt" in found, way == "queued")
                self.assertEqual(found.get(b"content-length", b"0"), b"%d" % len(body), (name, way))
                ways[way] = {key: value for key, value in found.items() if key not in NOT_COMPARED}
            self.assertEqual(ways["straight"], ways["queued"], name)

    def test_answers(self) -> None:
        """The bytes of header fields arrive. A field with ``_`` in its name does not, nor one that Connection names."""
        for method, target in ((b"GET", b"/"), (b"HEAD", b"/"), (b"GET", b"/304")):
            for more in (b"", QUEUED):
                head, _ = self.ask(method, target, more)
                lines = head.split(b"\r\n")
                self.assertIn(b"X-Name: Jos\xc3\xa9 \xe9", lines)
                for name in (b"x_name", b"x-hop", b"x-other", b"keep-alive"):
                    self.assertNotIn(name, head.lower())

    def test_bodiless(self) -> None:
        """An answer to HEAD has the length that the application announced, and no body."""
        for more in (b"", QUEUED):
            head, rest = self.ask(b"HEAD", b"/", more)
            self.assertEqual((head[:13], rest), (b"HTTP/1.1 200 ", b""))
            self.assertGreater(length_of(head) or 0, 30)

    def test_no_dead_letters(self) -> None:
        """A 304 or a 404 is an answer to the client that waits for it: the request is complete, and nothing is kept."""
        for target, status in ((b"/304", b"304"), (b"/404", b"404")):
            for more in (b"", QUEUED):
                head, _ = self.ask(b"GET", target, b"If-None-Match: a\r\n" + more)
                self.assertEqual(head.split(b" ")[1], status)
                self.assertIn(b"X-Name: Jos\xc3\xa9 \xe9", head)
        metrics = self.server.ask("GET", "/_openhqm/metrics")[2].decode().splitlines()
        self.assertIn('openhqm_requests_total{outcome="completed"} 2.0', metrics)
        self.assertIn("openhqm_dead_letters_total 0.0", metrics)

    def test_absolute(self) -> None:
        """The application gets the host of an absolute target as Host (RFC 9112, section 3.2.2)."""
        for more in (b"", QUEUED):
            line, fields, _ = self.got(b"GET", b"http://other:81/x?", more, b"")
            self.assertEqual((line, fields[b"host"]), (b"GET /x? HTTP/1.1", b"other:81"))
            self.assertEqual(fields[b"x-forwarded-host"], b"other:81")

    def test_trusted_proxy(self) -> None:
        """Behind a trusted proxy that ends TLS, the application learns that the client came by https."""
        came = b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n"
        came += b"X-Forwarded-Port: 443\r\n"
        for more in (b"", QUEUED):
            _, fields, _ = self.got(b"GET", b"/", came + more, b"")
            self.assertEqual(fields[b"x-forwarded-for"], b"192.0.2.1, 127.0.0.1")
            self.assertEqual((fields[b"x-forwarded-proto"], fields[b"x-forwarded-port"]), (b"https", b"443"))
            self.assertEqual(fields[b"x-forwarded-host"], b"shop.example")

    def test_own_paths(self) -> None:
        """The gateway's own paths stay strict, and TRACE and CONNECT name the methods there are."""
        for method, target, status in (
            (b"GET", b"/api/v1/status/a?f={a|b}", b"400"),
            (b"GET", b"/api/v1/status/a?50%", b"400"),
            (b"PROPFIND", b"/api/v1/submit", b"501"),
            (b"TRACE", b"/", b"405"),
            (b"CONNECT", b"other:443", b"405"),
        ):
            head, _ = self.ask(method, target, b"")
            self.assertEqual(head.split(b" ")[1], status, (method, target))
            if status == b"405":
                self.assertIn(b"\r\nAllow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS", head)
