"""Writing at once: in order, completely, and only where nothing else waits."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.http1.write_now import write_now

reactor: Any = real_reactor


class Receiver(Protocol):
    """Keeps what comes, and can be told not to read."""

    def connectionMade(self) -> None:
        self.factory.peers.append(self)  # type: ignore[union-attr]
        self.received: list[bytes] = []
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class Sender(Protocol):
    """Notes the end of its connection."""

    def connectionMade(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class WriteNowTests(TestCase):
    timeout = 20

    async def connect(self) -> tuple[Any, Any]:
        factory = Factory.forProtocol(Receiver)
        factory.peers = []  # type: ignore[attr-defined]
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        sender = await endpoint.connect(Factory.forProtocol(Sender))
        while not factory.peers:  # type: ignore[attr-defined]
            await self.turn()
        return sender, factory.peers[0]  # type: ignore[attr-defined]

    def turn(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        reactor.callLater(0, done.callback, None)
        return done

    async def test_at_once(self) -> None:
        """A small piece is with the kernel when the function returns: no turn of the reactor is needed."""
        sender, peer = await self.connect()
        write_now(sender.transport, b"hello")
        self.assertEqual(sender.transport.dataBuffer + b"".join(sender.transport._tempDataBuffer), b"")
        sender.transport.loseConnection()
        await peer.lost
        self.assertEqual(b"".join(peer.received), b"hello")

    async def test_in_order(self) -> None:
        """What the kernel does not take waits, and what is written later comes behind it."""
        sender, peer = await self.connect()
        peer.transport.pauseProducing()
        pieces = [bytes([number]) * 3_000_000 for number in range(3)] + [b"end"]
        for piece in pieces:
            write_now(sender.transport, piece)
        peer.transport.resumeProducing()
        sender.transport.loseConnection()
        await peer.lost
        self.assertEqual(b"".join(peer.received), b"".join(pieces))

    async def test_lost(self) -> None:
        """A connection that is lost is noticed by its transport, as ever."""
        sender, peer = await self.connect()
        peer.transport.abortConnection()
        await peer.lost
        for _ in range(3):
            write_now(sender.transport, b"x")
        await sender.lost
        write_now(sender.transport, b"x")


class MemoryTests(SynchronousTestCase):
    def test_others(self) -> None:
        """Any other transport is written to in its own way."""
        transport = StringTransport()
        write_now(transport, b"hello")
        self.assertEqual(transport.value(), b"hello")
