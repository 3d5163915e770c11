"""WebSockets of an application behind the sidecar, by a client and a server that share no code with ours."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from tests.ingress.test_sidecar import (
    HUGE,
    MOST_GROWTH,
    Case,
    Serving,
    _memory,
    body_of,
    everything,
    head_of,
    sidecar,
)

SECONDS = 30
CHAT = Subprotocol("chat")
ASKED = (
    b"GET /chat?a={b} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
LOCAL = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nServer: theirs\r\n\r\n"


def application(connection: ServerConnection) -> None:
    """Say what was asked for, and then everything that is heard; on "end", close with a code of its own."""
    request = connection.request
    assert request is not None
    connection.send(request.path)
    connection.send("\n".join(f"{name.lower()}: {value}" for name, value in request.headers.raw_items()))
    try:
        for message in connection:
            if message == "end":
                connection.close(4001, "as you wish")
                return
            connection.send(message)
    except ConnectionClosed:
        pass


class TalkTests(Case):
    """A real application, and real clients"""

    def setUp(self) -> None:
        server: Server = serve(application, "127.0.0.1", 0, subprotocols=[CHAT], max_size=None)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        context = sidecar(f"http://127.0.0.1:{server.socket.getsockname()[1]}", SECONDS)
        self.port, self.pid = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def talk(self, path: str = "/chat", **arguments: Any) -> ClientConnection:
        """A WebSocket to the application."""
        client = connect(
            f"ws://127.0.0.1:{self.port}{path}", open_timeout=SECONDS, max_size=None, subprotocols=[CHAT], **arguments
        )
        self.addCleanup(client.close)
        return client

    def test_messages(self) -> None:
        """Text, bytes, fragments and long messages arrive as they were sent, compressed or not."""
        for compression in (None, "deflate"):
            client = self.talk(compression=compression)
            self.assertEqual(client.subprotocol, "chat")
            client.recv(SECONDS), client.recv(SECONDS)
            for message in ("", "häl\u2028lo", bytes(range(256)), bytes(5 << 20), "x" * 70_000):
                client.send(message)
                self.assertEqual(client.recv(SECONDS), message)
            client.send(["in ", "three ", "pieces"])
            self.assertEqual(client.recv(SECONDS), "in three pieces")
            client.ping().wait(SECONDS)

    def test_what_the_application_sees(self) -> None:
        """Target and fields arrive as with any other request, with the protocol that was asked for, and ours beside."""
        client = self.talk(
            "/chat?a=1", additional_headers={"Cookie": "a=b", "Authorization": "Bearer x", "Prefer": "respond-async"}
        )
        self.assertEqual(client.recv(SECONDS), "/chat?a=1")
        fields = str(client.recv(SECONDS)).split("\n")
        for field in (
            "upgrade: websocket",
            "connection: Upgrade",
            "cookie: a=b",
            "authorization: Bearer x",
            "x-forwarded-for: 127.0.0.1",
            "via: 1.1 openhqm-test",
        ):
            self.assertEqual(fields.count(field), 1, (field, fields))

    def test_endings(self) -> None:
        """Code and reason of whoever ends it arrive at the other."""
        client = self.talk()
        client.send("end")
        with self.assertRaises(ConnectionClosed) as raised:
            while True:
                client.recv(SECONDS)
        assert raised.exception.rcvd is not None
        self.assertEqual((raised.exception.rcvd.code, raised.exception.rcvd.reason), (4001, "as you wish"))
        client = self.talk()
        client.close(4002, "enough")
        self.assertEqual(client.close_code, 4002)

    def test_loop(self) -> None:
        """A WebSocket that has passed this process before is 508."""
        with self.assertRaises(InvalidStatus) as raised:
            self.talk(additional_headers={"Via": "1.1 openhqm-test"})
        self.assertEqual(raised.exception.response.status_code, 508)


class BytesCase(Case):
    """Applications that are made of bytes"""

    @contextmanager
    def behind(self, serve: Serving, timeout: float = SECONDS) -> Iterator[socket.socket]:
        """A connection to a sidecar in front of ``serve``."""
        with sidecar(self.serve(serve).url, timeout) as (port, self.pid):
            connection = self.connect(port)
            connection.settimeout(SECONDS)
            yield connection


class BytesTests(BytesCase):
    """What passes, and what does not"""

    def test_as_they_came(self) -> None:
        """The answer passes with its own fields, and then all bytes, with those that came with its head."""

        def serve(connection: socket.socket) -> None:
            head_of(connection)
            connection.sendall(AGREED + b"Keep-Alive: x\r\n" + LOCAL + b"\x00first\r\n\r\n")
            connection.sendall(connection.recv(100).upper())
            connection.shutdown(socket.SHUT_WR)
            everything(connection)

        with self.behind(serve) as connection:
            connection.sendall(ASKED + b"\r\n")
            head, rest = head_of(connection)
            self.assertEqual(head[:12], b"HTTP/1.1 101")
            lines = head.lower().split(b"\r\n")
            self.assertEqual(sum(line.startswith((b"server:", b"keep-alive:", b"date:")) for line in lines), 1)
            self.assertIn(b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=", lines)
            connection.sendall(b"get / http/1.1\r\n\r\n\xff")
            self.assertEqual(rest + everything(connection), b"\x00first\r\n\r\nGET / HTTP/1.1\r\n\r\n\xff")

    def test_not_agreed(self) -> None:
        """An application that answers with anything else is passed on, and the connection goes on."""

        def serve(connection: socket.socket) -> None:
            rest = b""
            for answer in (b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", b"HTTP/1.1 204 No\r\n\r\n"):
                _, rest = head_of(connection, rest)
                connection.sendall(answer)
            everything(connection)

        with self.behind(serve) as connection:
            connection.sendall(ASKED + b"\r\n")
            head, rest = head_of(connection)
            self.assertEqual((head[:12], body_of(connection, head, rest)[0]), (b"HTTP/1.1 403", b"no"))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(head_of(connection)[0][:12], b"HTTP/1.1 204")

    def test_not_what_was_asked_for(self) -> None:
        """101 for another protocol, for two, without the field that says so, with a length, or garbled: 502."""
        for name, answer in {
            "another": AGREED.replace(b"websocket", b"h2c"),
            "two": AGREED.replace(b"websocket", b"websocket, h2c"),
            "twice": AGREED + b"Upgrade: h2c\r\n",
            "none": b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\n",
            "no connection": b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n",
            "sized": AGREED + b"Content-Length: 5\r\n",
            "chunked": AGREED + b"Transfer-Encoding: chunked\r\n",
            "1.0": AGREED.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n",
            "control": AGREED + b"A: \x07\r\n",
        }.items():

            def serve(connection: socket.socket, answer: bytes = answer) -> None:
                head_of(connection)
                connection.sendall(answer + b"\r\nmore")
                everything(connection)

            with self.subTest(name), self.behind(serve) as connection:
                connection.sendall(ASKED + b"Connection: close\r\n\r\n")
                self.assertEqual(everything(connection)[:12], b"HTTP/1.1 502")

    def test_not_asked_for(self) -> None:
        """What is no sound request for WebSocket reaches the application without the fields of an upgrade."""
        for name, request in {
            "POST": ASKED.replace(b"GET", b"POST") + b"Content-Length: 0\r\n",
            "body": ASKED + b"Content-Length: 2\r\n",
            "1.0": ASKED.replace(b"HTTP/1.1", b"HTTP/1.0"),
            "h2c": ASKED.replace(b": WebSocket", b": h2c"),
            "two": ASKED.replace(b": WebSocket", b": websocket, h2c"),
            "not connection": ASKED.replace(b"keep-alive, Upgrade", b"keep-alive"),
        }.items():
            seen: list[bytes] = []

            def serve(connection: socket.socket, seen: list[bytes] = seen) -> None:
                seen.append(head_of(connection)[0].lower())
                connection.sendall(
                    AGREED + b"\r\n" if len(seen) > 1 else b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
                )
                everything(connection)

            with self.subTest(name), self.behind(serve) as connection:
                connection.sendall(request + b"\r\n" + (b"hi" if name == "body" else b""))
                self.assertEqual(head_of(connection)[0][8:12], b" 200")
                self.assertNotIn(b"\r\nupgrade:", seen[0])
                self.assertNotIn(b"\r\nconnection:", seen[0])

    def test_too_early(self) -> None:
        """A client that sends something before the answer gets none: it could be read as another request."""
        sent, gone = threading.Event(), threading.Event()

        def serve(connection: socket.socket) -> None:
            head_of(connection)
            sent.wait(SECONDS)
            connection.sendall(AGREED + LOCAL)
            everything(connection)
            gone.set()

        with self.behind(serve) as connection:
            connection.sendall(ASKED + b"\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n")
            sent.set()
            self.assertEqual(everything(connection), b"")
            self.assertTrue(gone.wait(SECONDS))

    def test_one_leaves(self) -> None:
        """Each side ends with the other, behind what was sent before, in order or by a reset."""
        for reset in (False, True):
            gone, talking = threading.Event(), threading.Event()
            heard: list[bytes] = []

            def serve(
                connection: socket.socket,
                gone: threading.Event = gone,
                talking: threading.Event = talking,
                heard: list[bytes] = heard,
            ) -> None:
                head_of(connection)
                connection.sendall(AGREED + LOCAL)
                talking.set()
                heard.append(everything(connection))
                gone.set()

            with self.subTest(reset=reset), self.behind(serve) as connection:
                connection.sendall(ASKED + b"\r\n")
                head_of(connection)
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                else:
                    connection.sendall(b"last words")
                connection.close()
                self.assertTrue(gone.wait(SECONDS))
                self.assertEqual(heard, [b"" if reset else b"last words"])

    def test_silence(self) -> None:
        """Where neither says anything for the timeout of the sidecar, both are closed; what is said extends it."""
        began, gone = [], threading.Event()

        def serve(connection: socket.socket) -> None:
            head_of(connection)
            connection.sendall(AGREED + LOCAL)
            for _ in range(4):
                time.sleep(0.4)
                connection.sendall(b".")
            began.append(time.monotonic())
            everything(connection)
            began.append(time.monotonic())
            gone.set()

        with self.behind(serve, 1.0) as connection:
            connection.sendall(ASKED + b"\r\n")
            _, rest = head_of(connection)
            self.assertEqual(rest + everything(connection), b"....")
            self.assertTrue(gone.wait(SECONDS))
            self.assertGreater(began[1] - began[0], 0.8)


class MemoryTests(BytesCase):
    """Far more bytes pass than may be kept, to one that reads slower than they come"""

    def test_to_the_application(self) -> None:
        """The client is slowed down to the application."""
        done = threading.Event()

        def serve(connection: socket.socket) -> None:
            head_of(connection)
            connection.sendall(AGREED + LOCAL)
            time.sleep(0.5)  # until all buffers in between are full
            take(connection)
            connection.sendall(b"done")
            done.wait(SECONDS)

        with self.behind(serve, SECONDS) as connection:
            connection.sendall(ASKED + b"\r\n")
            head_of(connection)
            before = _memory(self.pid, "VmRSS:")
            for _ in range(HUGE):
                connection.sendall(bytes(1 << 20))
            self.assertEqual(connection.recv(4), b"done")
            self.assertLess(_memory(self.pid, "VmHWM:") - before, MOST_GROWTH)
            done.set()

    def test_to_the_client(self) -> None:
        """The application is slowed down to the client."""

        def serve(connection: socket.socket) -> None:
            head_of(connection)
            connection.sendall(AGREED + LOCAL)
            for _ in range(HUGE):
                connection.sendall(bytes(1 << 20))
            everything(connection)

        with self.behind(serve, SECONDS) as connection:
            connection.sendall(ASKED + b"\r\n")
            _, rest = head_of(connection)
            before = _memory(self.pid, "VmRSS:")
            time.sleep(0.5)
            take(connection, len(rest))
            self.assertLess(_memory(self.pid, "VmHWM:") - before, MOST_GROWTH)


def take(connection: socket.socket, taken: int = 0) -> None:
    """Read what is sent, to its last byte."""
    buffer = bytearray(1 << 20)
    while taken < HUGE << 20:
        count = connection.recv_into(buffer)
        if not count:
            raise ConnectionError(f"closed behind {taken} bytes")
        taken += count
