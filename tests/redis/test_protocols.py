"""Commands to Redis and their answers, byte by byte."""

from __future__ import annotations

from typing import Any
from unittest import SkipTest

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from openhqm.redis.driver import is_connection_lost, is_refusal

try:
    from openhqm.redis.protocols import CommandProtocol, SubscriberProtocol
except ImportError as error:  # as in driver.check_installed
    raise SkipTest(f"redis needs more than is installed: {error}") from None


class CommandProtocolTests(SynchronousTestCase):
    """`CommandProtocol`, by the bytes that it sends and is sent"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = StringTransport()
        self.protocol = self.make()
        self.protocol.makeConnection(self.transport)

    def make(self) -> Any:
        return CommandProtocol(self.clock.seconds)

    def refusal_of(self, asked: Any) -> str:
        error = self.failureResultOf(asked).value
        self.assertTrue(is_refusal(error))
        return str(error)

    def test_arguments(self) -> None:
        """Bytes go as they are, text as UTF-8, and numbers without losing a digit."""
        self.protocol.execute_command("SET", b"\x00\xff", "ä", 7, 0.1)
        wanted = b"*5\r\n$3\r\nSET\r\n$2\r\n\x00\xff\r\n$2\r\n\xc3\xa4\r\n$1\r\n7\r\n$3\r\n0.1\r\n"
        self.assertEqual(self.transport.value(), wanted)

    def test_in_order(self) -> None:
        """Answers go to their commands in order, with bytes as they came."""
        first, second = (self.protocol.execute_command("GET", name) for name in ("a", "b"))
        self.protocol.dataReceived(b"$2\r\n\x00\xff\r\n$1")
        self.assertEqual(self.successResultOf(first), b"\x00\xff")
        self.assertNoResult(second)
        self.protocol.dataReceived(b"\r\n7\r\n")
        self.assertEqual(self.successResultOf(second), b"7")

    def test_refused(self) -> None:
        """A refusal is the answer to its own command, and to no other."""
        first, second = (self.protocol.execute_command("GET", name) for name in ("a", "b"))
        self.protocol.dataReceived(b"-OOM command not allowed\r\n$-1\r\n")
        self.assertEqual(self.refusal_of(first), "OOM command not allowed")
        self.assertIsNone(self.successResultOf(second))

    def test_cancelled(self) -> None:
        """A command that was cancelled is still answered before the next one; its answer goes to no caller."""
        first, second = (self.protocol.execute_command("GET", name) for name in ("a", "b"))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.protocol.dataReceived(b"-ERR too late\r\n:2\r\n")
        self.assertEqual(self.successResultOf(second), 2)

    def test_since_when(self) -> None:
        """Commands without an answer are known with the time when they were sent, the oldest first."""
        self.protocol.execute_command("GET", "a")
        self.clock.advance(1)
        self.protocol.execute_command("GET", "b")
        self.assertEqual([at for at, _ in self.protocol.asked], [0, 1])
        self.protocol.dataReceived(b":1\r\n")
        self.assertEqual([at for at, _ in self.protocol.asked], [1])

    def test_lost(self) -> None:
        """A command without an answer fails when the connection is lost, and so does every later one."""
        before = self.protocol.execute_command("GET", "a")
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(is_connection_lost(self.failureResultOf(before).value))
        self.assertTrue(is_connection_lost(self.failureResultOf(self.protocol.execute_command("GET", "a")).value))

    def test_refused_connection(self) -> None:
        """Redis may refuse the connection before the first command: that is the answer to it."""
        self.protocol.dataReceived(b"-ERR max number of clients reached\r\n")
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.refusal_of(self.protocol.execute_command("PING")), "ERR max number of clients reached")


class SubscriberProtocolTests(CommandProtocolTests):
    """`SubscriberProtocol`: as above, and between the answers it hears the messages in its channels"""

    def make(self) -> Any:
        self.heard: list[tuple[bytes, bytes]] = []
        return SubscriberProtocol(self.clock.seconds, lambda channel, message: self.heard.append((channel, message)))

    def test_messages(self) -> None:
        """A message in a channel is not taken for an answer."""
        subscribed = self.protocol.execute_command("SUBSCRIBE", "news")
        self.protocol.dataReceived(b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")
        self.successResultOf(subscribed)
        pong = self.protocol.execute_command("PING")
        self.protocol.dataReceived(b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n")
        self.assertEqual(self.successResultOf(pong), [b"pong", b""])
        self.assertEqual(self.heard, [(b"news", b"hi")])
