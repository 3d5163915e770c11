"""HTTP servers on real ports whose answers the test chooses, good and bad ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

Say = Callable[["Peer"], None]


class Peer(Protocol):
    """One connection. The factory's ``say`` is called with it for each complete request."""

    factory: Target
    transport: Any

    def connectionMade(self) -> None:
        self.buffer, self.gone = b"", False
        self.factory.peers.append(self)
        if self.factory.on_connect is not None:
            self.factory.on_connect(self)

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            fields = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
            }
            length = int(fields.get(b"content-length", b"0"))
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            self.head, self.fields, self.content = head, fields, rest[:length]
            self.factory.requests.append((head, rest[:length]))
            self.factory.fields.append({name.decode(): value.decode("latin-1") for name, value in fields.items()})
            self.factory.say(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True


class Target(Factory):
    """A server that keeps its connections and its requests."""

    noisy = False
    protocol: Any = Peer

    def __init__(self, say: Say | None = None, on_connect: Say | None = None) -> None:
        self.say: Say = say or answer()
        self.on_connect = on_connect
        self.peers: list[Peer] = []
        self.requests: list[tuple[bytes, bytes]] = []
        self.fields: list[dict[str, str]] = []

    def listen(self, case: Any, reactor: Any, tls: Any = None) -> int:
        """Listen until the test is over, and return the port."""
        if tls is None:
            port = reactor.listenTCP(0, self, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, self, tls, interface="127.0.0.1")
        case.addCleanup(port.stopListening)
        case.addCleanup(lambda: [peer.transport.abortConnection() for peer in self.peers if not peer.gone])
        number: int = port.getHost().port
        return number


def answer(status: bytes = b"200 OK", body: bytes = b'{"ok":true}', *fields: bytes) -> Say:
    """Answer with a complete response."""
    lines = b"".join(field + b"\r\n" for field in fields or (b"Content-Type: application/json",))
    return raw(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), lines, body))


def raw(data: bytes, *, close: bool = False) -> Say:
    """Answer with these bytes, valid or not."""

    def say(peer: Peer) -> None:
        peer.transport.write(data)
        if close:
            peer.transport.loseConnection()

    return say


def endless(head: bytes, piece: bytes) -> Say:
    """Answer with ``head``, and then ``piece`` for as long as the connection is open."""

    class Source:
        def __init__(self, peer: Peer) -> None:
            self.peer = peer

        def resumeProducing(self) -> None:
            self.peer.transport.write(piece)

        def stopProducing(self) -> None:
            """The connection is closed."""

    def say(peer: Peer) -> None:
        peer.transport.write(head)
        peer.transport.registerProducer(Source(peer), False)

    return say


def silence(peer: Peer) -> None:
    """Do not answer."""
