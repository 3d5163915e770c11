"""Channels of Redis: every message in them is heard, or else it is known that some are not."""

from __future__ import annotations

import gc
import socket
from typing import Any
from unittest import SkipTest

from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Submission
from openhqm.redis.address import Address
from openhqm.redis.listening import PING_SECONDS, Listening
from openhqm.testing import REQUESTS
from tests.redis.real_server import RealRedisTestCase

try:
    from hiredis import Reader
except ImportError as error:  # as in driver.check_installed
    raise SkipTest(f"redis needs more than is installed: {error}") from None

BUSY = b"-BUSY Redis is busy running a script.\r\n"
NOPERM = b"-NOPERM this user has no permissions to access one of the channels used as arguments\r\n"
OPENED = b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"
CLOSED = b"*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n"
PONG = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"


class ListeningTests(SynchronousTestCase):
    """`Listening`, by what it says to a Redis that the test plays"""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.opened = 0
        self.listening = Listening(Address(path="/nowhere"), self.reactor, lambda: 0.5, 1.5, self.nothing)
        self.listening.link.start()
        _, factory, *_ = self.reactor.unixClients[-1]
        self.protocol = factory.buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        self.reading = Reader()

    async def nothing(self, protocol: Any) -> None:
        """There is nothing to be said first."""

    def listen(self) -> Any:
        def opened() -> None:
            self.opened += 1

        return self.listening.listen("news", lambda message: None, opened)

    def said(self) -> list[list[bytes]]:
        """What Redis was asked since this was asked last."""
        self.reading.feed(self.transport.value())
        self.transport.clear()
        return list(iter(self.reading.gets, False))

    def answer(self, *answers: bytes) -> None:
        self.protocol.dataReceived(b"".join(answers))

    def logged(self, events: list[Any]) -> list[str]:
        return [event["log_format"] for event in events if "from other processes" in (event["log_format"] or "")]

    def test_asked_again(self) -> None:
        """A channel that Redis will not open now is asked for again with each PING until it opens, and then no more."""
        self.listen()
        self.assertEqual(self.said(), [[b"SUBSCRIBE", b"news"]])
        self.answer(BUSY)
        for _ in range(3):
            self.assertEqual((self.said(), self.opened), ([], 0))
            self.reactor.advance(PING_SECONDS)
            self.assertEqual(sorted(self.said()), [[b"PING"], [b"SUBSCRIBE", b"news"]])
            self.answer(BUSY, BUSY)
        self.reactor.advance(PING_SECONDS)
        self.answer(*[PONG if command == [b"PING"] else OPENED for command in self.said()])
        self.assertEqual(self.opened, 1)
        self.reactor.advance(PING_SECONDS)
        self.assertEqual(self.said(), [[b"PING"]])

    def test_said_once(self) -> None:
        """That nothing is heard is said once, however often it is tried; and so is that it is over."""
        self.listen()
        with capturedLogs() as events:
            self.answer(*[NOPERM for _ in self.said()])
            for _ in range(3):
                self.reactor.advance(PING_SECONDS)
                self.answer(*[PONG if command == [b"PING"] else NOPERM for command in self.said()])
        self.assertEqual(len(self.logged(events)), 1)
        with capturedLogs() as events:
            self.reactor.advance(PING_SECONDS)
            self.answer(*[PONG if command == [b"PING"] else OPENED for command in self.said()])
        self.assertEqual(len(self.logged(events)), 1)
        self.assertEqual(self.opened, 1)

    def test_without_a_listener(self) -> None:
        """A channel that has lost its listener is not asked for again."""
        stop = self.listen()
        self.answer(BUSY)
        stop()
        self.answer(CLOSED)
        self.said()
        self.reactor.advance(PING_SECONDS)
        self.assertEqual(self.said(), [[b"PING"]])

    def test_not_closed(self) -> None:
        """That Redis will not close a channel now is nothing that would break down: it closes with the connection."""
        stop = self.listen()
        self.answer(OPENED)
        stop()
        self.answer(BUSY)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])


class BusyTests(RealRedisTestCase):
    """A real Redis that is busy with a script"""

    async def test_busy(self) -> None:
        """A process that connects while Redis is busy hears its channels as soon as that is over, or a PING later."""
        server = await self.server(**{"busy-reply-threshold": "100"})
        a, b = [await self.instance(server.url) for _ in range(2)]
        waiting = b.queue.receive(REQUESTS, 1)
        await b.quiet()
        channel = f"t:signals:{REQUESTS}"
        self.assertIn(b":1", server.say("PUBSUB", "NUMSUB", channel))
        with capturedLogs() as events, socket.create_connection(("127.0.0.1", server.port), timeout=5) as other:
            other.sendall(b"EVAL 'while true do end' 0\r\n")
            await self.until(lambda: server.say("PING").startswith(b"-BUSY"), "it is not busy")
            b.redis.listening.link.reconnect("as the watchdog does")
            refused = "no messages from other processes: {reason}"
            await self.until(lambda: refused in [event["log_format"] for event in events], "it was not refused")
            server.say("SCRIPT", "KILL")
        await self.until(lambda: b":1" in server.say("PUBSUB", "NUMSUB", channel), "it hears nothing")
        accepted = await self.patiently(lambda: a.queue.accept(Submission(b"1"), None))
        (delivery,) = await waiting
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
