"""The pass-through over real sockets: an application, clients, and everything that can go wrong between them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import TestCase

from tests.servers import ROOT, free_port

TIMEOUT = 0.6
HUGE = int(os.environ.get("TEST_STREAM_MIB", "256"))
MOST_GROWTH = 64.0
Serving = Callable[[socket.socket], None]


class Upstream:
    """A server that calls a function with each connection, in a thread."""

    def __init__(self, serve: Serving) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.connections = 0
        self._serve = serve
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the gateway has closed it, which some tests expect
            self._serve(connection)

    def close(self) -> None:
        self.socket.close()


@contextmanager
def sidecar(upstream: str, timeout: float = TIMEOUT) -> Iterator[tuple[int, int]]:
    """A process with a sidecar: its port and its pid."""
    command = [sys.executable, "-m", "tests.ingress.sidecar_process", upstream, str(timeout)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def head_of(connection: socket.socket, rest: bytes = b"") -> tuple[bytes, bytes]:
    """A head, and the bytes behind it."""
    while b"\r\n\r\n" not in rest:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError(f"closed behind {rest!r}")
        rest += data
    head, _, rest = rest.partition(b"\r\n\r\n")
    return head, rest


def length_of(head: bytes) -> int | None:
    """The Content-Length of a head."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return None


def body_of(connection: socket.socket, head: bytes, rest: bytes) -> tuple[bytes, bytes]:
    """The body behind ``head``, and the bytes behind that."""
    if b"transfer-encoding: chunked" in head.lower():
        body = b""
        while True:
            while b"\r\n" not in rest:
                rest += _more(connection)
            size, _, rest = rest.partition(b"\r\n")
            while len(rest) < int(size, 16) + 2:
                rest += _more(connection)
            if not int(size, 16):
                return body, rest[2:]
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    length = length_of(head) or 0
    while len(rest) < length:
        rest += _more(connection)
    return rest[:length], rest[length:]


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("closed in the middle of a body")
    return data


def everything(connection: socket.socket) -> bytes:
    """All bytes until the connection ends, in order or by a reset."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data


def mirror(connection: socket.socket) -> None:
    """Answer each request with the bytes of its head and body."""
    rest = b""
    while True:
        head, rest = head_of(connection, rest)
        body, rest = body_of(connection, head, rest)
        answer = b"" if head.startswith(b"HEAD ") else head + b"\r\n\r\n" + body
        size = len(head) + 4 + len(body)
        connection.sendall(
            b"HTTP/1.1 200 Mirrored\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Named: 1\r\n"
            b"Connection: keep-alive, x-named\r\nContent-Encoding: gzip\r\nKeep-Alive: timeout=5\r\n"
            b"X_Under: 1\r\nDate: today\r\nContent-Length: %d\r\n\r\n%b" % (size, answer)
        )


class Case(TestCase):
    def connect(self, port: int) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.addCleanup(connection.close)
        return connection

    def serve(self, serve: Serving) -> Upstream:
        upstream = Upstream(serve)
        self.addCleanup(upstream.close)
        return upstream


class PassThroughTests(Case):
    """With an application that answers with the request that it got"""

    def setUp(self) -> None:
        self.upstream = self.serve(mirror)
        running = sidecar(self.upstream.url)
        self.port, _ = running.__enter__()
        self.addCleanup(running.__exit__, None, None, None)
        self.connection = self.connect(self.port)

    def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Head and body of the answer."""
        self.connection.sendall(request)
        head, rest = head_of(self.connection)
        if request.startswith(b"HEAD "):
            return head, rest
        body, rest = body_of(self.connection, head, rest)
        self.assertEqual(rest, b"")
        return head, body

    def mirrored(self, request: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
        """Request line, fields and body that the application got."""
        head, body = self.ask(request)
        self.assertTrue(head.startswith(b"HTTP/1.1 200 Mirrored\r\n"), head)
        got, _, body = body.partition(b"\r\n\r\n")
        line, *fields = got.split(b"\r\n")
        found = [tuple(field.split(b": ", 1)) for field in fields]
        self.assertEqual(len(found), len(dict(found)))  # type: ignore[arg-type]
        return line, dict(found), body  # type: ignore[arg-type]

    def test_requests(self) -> None:
        """Method and target arrive as they were sent, unusual ones included, over kept connections."""
        targets = [
            b"/",
            b"//a//b",
            b"/a/../b/./c",
            b"/%7Euser/%2F%2f",
            b"/a?b=c?d=/&e=%20+",
            b"/;x=1,2/!$&'()*+",
            b"/a?",
        ]
        for target in targets:
            for method in (b"GET", b"DELETE", b"OPTIONS", b"POST", b"PUT", b"PATCH"):
                line, _, _ = self.mirrored(b"%b %b HTTP/1.1\r\nHost: x\r\n\r\n" % (method, target))
                self.assertEqual(line, b"%b %b HTTP/1.1" % (method, target))
        self.assertEqual(self.mirrored(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")[0], b"OPTIONS * HTTP/1.1")
        self.assertLessEqual(self.upstream.connections, 2)

    def test_fields(self) -> None:
        """End-to-end fields arrive. Fields of the connection, and forwarding fields of a client, do not."""
        _, fields, _ = self.mirrored(
            b"GET / HTTP/1.1\r\nHost: shop.example:81\r\nCookie: a=b\r\nAuthorization: Basic eA==\r\nX-Empty:\r\n"
            b"Connection: keep-alive, X-Mine, Host, X-Forwarded-For\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
            b"Proxy: http://evil\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nVia: 1.1 a\r\n"
            b"Upgrade: h2c\r\nAccept-Encoding: gzip\r\n\r\n"
        )
        self.assertEqual(
            fields,
            {
                b"host": b"shop.example:81",
                b"cookie": b"a=b",
                b"authorization": b"Basic eA==",
                b"x-empty": b"",
                b"accept-encoding": b"gzip",
                b"forwarded": b'for=127.0.0.1;proto=http;host="shop.example:81"',
                b"x-forwarded-for": b"127.0.0.1",
                b"x-forwarded-proto": b"http",
                b"x-forwarded-host": b"shop.example:81",
                b"via": b"1.1 a, 1.1 openhqm-test",
            },
        )

    def test_answers(self) -> None:
        """The fields of the answer arrive, repeated and compressed as the application sent them."""
        head, _ = self.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        lines = head.split(b"\r\n")
        self.assertEqual(
            lines[:-1],
            [
                b"HTTP/1.1 200 Mirrored",
                b"Set-Cookie: a=1",
                b"Set-Cookie: b=2",
                b"Content-Encoding: gzip",
                b"Date: today",
            ],
        )

    def test_bodies(self) -> None:
        """A body arrives with a length or in chunks, as it was sent."""
        body = bytes(range(256)) * 300
        _, fields, got = self.mirrored(
            b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.assertEqual((got, fields[b"content-length"]), (body, b"%d" % len(body)))
        chunked = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunked += b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: x\r\n\r\n"
        _, fields, got = self.mirrored(chunked)
        self.assertEqual((got, fields[b"transfer-encoding"]), (b"abcde", b"chunked"))
        self.assertNotIn(b"content-length", fields)
        _, fields, _ = self.mirrored(b"POST /a HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(fields[b"content-length"], b"0")
        self.assertNotIn(b"content-length", self.mirrored(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")[1])

    def test_head(self) -> None:
        """HEAD has the length and no body, and the next answer follows."""
        head, rest = self.ask(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertGreater(length_of(head) or 0, 0)
        self.assertEqual(rest, b"")
        self.mirrored(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    def test_pipelined(self) -> None:
        """A request that is passed through is answered in order between two of the gateway's own."""
        get = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
        self.connection.sendall(get % b"/health" + get % b"/a" + get % b"/api/v1/b")
        rest = b""
        bodies = []
        for _ in range(3):
            head, rest = head_of(self.connection, rest)
            body, rest = body_of(self.connection, head, rest)
            bodies.append(body)
        self.assertEqual((bodies[0], bodies[1][:7], bodies[2]), (b"ours:/health", b"GET /a ", b"ours:/api/v1/b"))

    def test_queued(self) -> None:
        """By a rule or by a preference a request is queued. The client's own wait counts more than the rule's."""
        for fields, target, wait in (
            (b"", b"/jobs/1", 7.0),
            (b"Prefer: wait=3\r\n", b"/jobs/1", 3.0),
            (b"Prefer: wait=300\r\n", b"/jobs/1", 60.0),
            (b"Prefer: respond-async\r\n", b"/a", None),
            (b"Prefer: respond-async\r\nPrefer: wait=4\r\n", b"/a?b", 4.0),
        ):
            head, body = self.ask(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n%b\r\nhi" % (target, fields))
            self.assertTrue(head.startswith(b"HTTP/1.1 202 "), head)
            self.assertEqual(json.loads(body), {"target": target.decode(), "body": "hi", "wait": wait})
        head, rest = self.ask(b"HEAD /a HTTP/1.1\r\nHost: x\r\nPrefer: respond-async\r\n\r\n")
        self.assertEqual((head[:12], rest), (b"HTTP/1.1 202", b""))
        self.assertEqual(self.upstream.connections, 0)
        head, _ = self.ask(b"POST /jobs/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 413 "), head)

    def test_refused(self) -> None:
        """A loop is answered with a problem, and does not reach the application."""
        connection = self.connect(self.port)
        connection.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nVia: 1.1 openhqm-test\r\n\r\n")
        head, _, body = everything(connection).partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 508 "), head)
        self.assertIn(b"application/problem+json", head)
        self.assertEqual(json.loads(body)["status"], 508)
        self.assertEqual(self.upstream.connections, 0)


class BadApplicationTests(Case):
    """Applications that fail"""

    def ask(self, serve: Serving, request: bytes = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") -> bytes:
        """All bytes that a client gets."""
        with sidecar(self.serve(serve).url) as (port, _):
            connection = self.connect(port)
            connection.sendall(request)
            return everything(connection)

    def assertProblem(self, answer: bytes, status: int) -> None:
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 %d " % status), answer[:300])
        self.assertIn(b"Content-Type: application/problem+json", head)
        document = json.loads(body)
        self.assertEqual((document["status"], document["instance"]), (status, "/"))

    def test_not_listening(self) -> None:
        """Nothing listens: 502, also for an upload, whose rest is refused before the connection is closed in order."""
        with sidecar(f"http://127.0.0.1:{free_port()}") as (port, _):
            connection = self.connect(port)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            self.assertProblem(everything(connection), 502)
            connection = self.connect(port)
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc")
            answer = everything(connection)
            self.assertProblem(answer, 502)
            self.assertIn(b"Connection: close\r\n", answer)

    def test_before_the_head(self) -> None:
        """The application never answers, or byte by byte: 504. It closes, or sends garbage or too much: 502."""

        def silent(connection: socket.socket) -> None:
            everything(connection)

        def dripping(connection: socket.socket) -> None:
            head_of(connection)
            for _ in range(100):
                connection.sendall(b"HTTP/1.1 200 OK\r\nA: bcdefghijklmnopqrstuvwxyz"[_ % 40 :][:1])
                time.sleep(0.1)

        def says(answer: bytes) -> Serving:
            def serve(connection: socket.socket) -> None:
                head_of(connection)
                connection.sendall(answer)

            return serve

        for serve, status in (
            (silent, 504),
            (says(b""), 502),
            (says(b"HTTP/1.1 200 OK\r\nA"), 502),
            (says(b"\x00\x01\x02\x03 garbage\r\n\r\n"), 502),
            (says(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000 + b"\r\n"), 502),
            (says(b"HTTP/1.1 200 OK\r\nA: b\x07\r\nContent-Length: 0\r\n\r\n"), 502),
            (says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 502),
        ):
            self.assertProblem(self.ask(serve), status)
        self.assertIn(self.ask(dripping)[:12], (b"HTTP/1.1 502", b"HTTP/1.1 504"))

    def test_within_the_body(self) -> None:
        """An answer that breaks off or stalls is cut off for the client, too, so that it never looks complete."""
        for head in (b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"):
            for stays in (False, True):

                def serve(connection: socket.socket, head: bytes = head, stays: bool = stays) -> None:
                    head_of(connection)
                    connection.sendall(b"HTTP/1.1 200 OK\r\n" + head)
                    if stays:
                        everything(connection)

                answer = self.ask(serve)
                self.assertNotIn(b"\r\n0\r\n", answer)
                body = answer.partition(b"\r\n\r\n")[2]
                self.assertIn(body, (b"", b"abc", b"3\r\nabc\r\n"))

    def test_drips(self) -> None:
        """A body that comes piece by piece arrives piece by piece."""

        def serve(connection: socket.socket) -> None:
            head_of(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            for _ in range(5):
                time.sleep(TIMEOUT * 0.4)
                connection.sendall(b"a")
            everything(connection)

        self.assertTrue(self.ask(serve).endswith(b"\r\n\r\naaaaa"))

    def test_client_leaves(self) -> None:
        """When a client closes its connection, its request to the application is aborted."""
        gone, asked = threading.Event(), threading.Event()

        def serve(connection: socket.socket) -> None:
            head_of(connection)
            asked.set()
            everything(connection)
            gone.set()

        with sidecar(self.serve(serve).url, 30) as (port, _):
            connection = self.connect(port)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertTrue(asked.wait(10))
            connection.close()
            self.assertTrue(gone.wait(10))


class MemoryTests(Case):
    """Memory is constant: far more bytes pass than may be kept"""

    def growth(self, serve: Serving, move: Callable[[socket.socket], None]) -> float:
        with sidecar(self.serve(serve).url, 60) as (port, pid):
            connection = self.connect(port)
            before = _memory(pid, "VmRSS:")
            move(connection)
            return _memory(pid, "VmHWM:") - before

    def test_upload(self) -> None:
        """An upload is not kept in memory, although the application reads it slower than it comes."""
        piece, size = bytes(1 << 20), HUGE << 20

        def serve(connection: socket.socket) -> None:
            _, rest = head_of(connection)
            time.sleep(0.5)  # until all buffers in between are full
            left = size - len(rest)
            buffer = bytearray(1 << 20)
            while left:
                left -= connection.recv_into(buffer)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
            everything(connection)

        def move(connection: socket.socket) -> None:
            connection.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(HUGE):
                connection.sendall(piece)
            head, rest = head_of(connection)
            self.assertEqual(body_of(connection, head, rest)[0], b"done")

        self.assertLess(self.growth(serve, move), MOST_GROWTH)

    def test_download(self) -> None:
        """A download is not kept in memory, although the client reads it slower than it comes."""
        piece, size = bytes(1 << 20), HUGE << 20

        def serve(connection: socket.socket) -> None:
            head_of(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(HUGE):
                connection.sendall(piece)
            everything(connection)

        def move(connection: socket.socket) -> None:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.5)
            head, rest = head_of(connection)
            left = (length_of(head) or 0) - len(rest)
            self.assertEqual(left + len(rest), size)
            buffer = bytearray(1 << 20)
            while left:
                left -= connection.recv_into(buffer)

        self.assertLess(self.growth(serve, move), MOST_GROWTH)


def _memory(pid: int, which: str) -> float:
    """The resident memory of a process, or its peak, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no {which}")
