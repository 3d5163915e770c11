"""How Redis is asked."""

from __future__ import annotations

from typing import Any
from unittest import SkipTest

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from openhqm.redis.wire import is_hanging_up, is_refusal

try:
    from openhqm.redis.protocols import Asker, Listener
except ImportError as error:  # as in wire.check_installed
    raise SkipTest(f"redis needs more than is installed: {error}") from None


class AskerTests(SynchronousTestCase):
    """`Asker`, by the bytes that it sends and is sent"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = StringTransport()
        self.protocol = self.make()
        self.protocol.makeConnection(self.transport)

    def make(self) -> Any:
        return Asker(self.clock.seconds)

    def refusal_of(self, asked: Any) -> str:
        error = self.failureResultOf(asked).value
        self.assertTrue(is_refusal(error))
        return str(error)

    def test_words(self) -> None:
        """Bytes go as they are, text as UTF-8, and numbers without losing a digit."""
        self.protocol.execute_command("SET", b"\x00\xff", "ä", 7, 0.1)
        wanted = b"*5\r\n$3\r\nSET\r\n$2\r\n\x00\xff\r\n$2\r\n\xc3\xa4\r\n$1\r\n7\r\n$3\r\n0.1\r\n"
        self.assertEqual(self.transport.value(), wanted)

    def test_in_order(self) -> None:
        """Who has asked first is answered first, with bytes as they came."""
        first, second = (self.protocol.execute_command("GET", name) for name in ("a", "b"))
        self.protocol.dataReceived(b"$2\r\n\x00\xff\r\n$1")
        self.assertEqual(self.successResultOf(first), b"\x00\xff")
        self.assertNoResult(second)
        self.protocol.dataReceived(b"\r\n7\r\n")
        self.assertEqual(self.successResultOf(second), b"7")

    def test_refused(self) -> None:
        """A refusal is for whoever asked, and for nobody else."""
        first, second = (self.protocol.execute_command("GET", name) for name in ("a", "b"))
        self.protocol.dataReceived(b"-OOM command not allowed\r\n$-1\r\n")
        self.assertEqual(self.refusal_of(first), "OOM command not allowed")
        self.assertIsNone(self.successResultOf(second))

    def test_gave_up(self) -> None:
        """Whose asker has given up is still answered before the next one is; nobody hears of it."""
        first, second = (self.protocol.execute_command("GET", name) for name in ("a", "b"))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.protocol.dataReceived(b"-ERR too late\r\n:2\r\n")
        self.assertEqual(self.successResultOf(second), 2)

    def test_since_when(self) -> None:
        """What is not answered is known with the time since when, the oldest first."""
        self.protocol.execute_command("GET", "a")
        self.clock.advance(1)
        self.protocol.execute_command("GET", "b")
        self.assertEqual([at for at, _ in self.protocol.asked], [0, 1])
        self.protocol.dataReceived(b":1\r\n")
        self.assertEqual([at for at, _ in self.protocol.asked], [1])

    def test_lost(self) -> None:
        """Who waits when the connection is lost is told so, and so is who asks afterwards."""
        before = self.protocol.execute_command("GET", "a")
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(is_hanging_up(self.failureResultOf(before).value))
        self.assertTrue(is_hanging_up(self.failureResultOf(self.protocol.execute_command("GET", "a")).value))

    def test_not_let_in(self) -> None:
        """Redis may say before it is asked that it does not let us in: that is the answer to the first question."""
        self.protocol.dataReceived(b"-ERR max number of clients reached\r\n")
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.refusal_of(self.protocol.execute_command("PING")), "ERR max number of clients reached")


class ListenerTests(AskerTests):
    """`Listener`: as above, and between the answers it hears what is said in its channels"""

    def make(self) -> Any:
        self.heard: list[tuple[bytes, bytes]] = []
        return Listener(self.clock.seconds, lambda channel, message: self.heard.append((channel, message)))

    def test_messages(self) -> None:
        """A message is no answer."""
        subscribed = self.protocol.execute_command("SUBSCRIBE", "news")
        self.protocol.dataReceived(b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")
        self.successResultOf(subscribed)
        pong = self.protocol.execute_command("PING")
        self.protocol.dataReceived(b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n")
        self.assertEqual(self.successResultOf(pong), [b"pong", b""])
        self.assertEqual(self.heard, [(b"news", b"hi")])
