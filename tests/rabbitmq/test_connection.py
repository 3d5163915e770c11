"""What pika is asked and answers, or does not, without a RabbitMQ."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.rabbitmq.connection import LOOK_SECONDS, MOST_SILENT_LOOKS, Channel, Connection, describe, is_missing


class Raw:
    """pika's channel."""

    is_open = True

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def add_on_close_callback(self, callback: Any) -> None:
        self.end = callback

    def queue_declare(self, callback: Any, **arguments: Any) -> None:
        self.asked.append(callback)

    def close(self) -> None:
        self.is_open = False


class ChannelTests(SynchronousTestCase):
    """`Channel`"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.raw = Raw()
        self.channel = Channel(self.raw, self.clock)
        self.closed: list[Exception] = []
        self.channel.on_closed = self.closed.append

    def declare(self) -> Deferred[Any]:
        return self.channel.call("queue_declare", 2.0, queue="q")

    def test_in_time(self) -> None:
        """What is answered in time is the answer."""
        waiting = self.declare()
        self.raw.asked[0]("declared")
        self.assertEqual(self.successResultOf(waiting), "declared")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late(self) -> None:
        """A question without an answer fails in its time, and what is answered after that goes nowhere."""
        for give_up in (lambda waiting: self.clock.advance(2.0), lambda waiting: waiting.cancel()):
            waiting = self.declare()
            give_up(waiting)
            self.failureResultOf(waiting, TimeoutError, CancelledError)
            self.raw.asked.pop()("declared")
        self.raw.end(self.raw, KeyError("closed"))
        self.assertEqual(len(self.closed), 1)

    def test_ends(self) -> None:
        """A channel that ends otherwise fails what waits, and says so afterwards."""
        waiting = self.declare()
        waiting.addErrback(lambda failure: self.assertEqual(self.closed, []))
        error = KeyError("no queue")
        self.raw.end(self.raw, error)
        self.successResultOf(waiting)
        self.assertEqual(self.closed, [error])

    def test_close(self) -> None:
        """A channel that is closed here fails what waits, and does not say that it has ended."""
        waiting = self.declare()
        self.channel.close()
        self.failureResultOf(waiting, NotDurable)
        self.raw.end(self.raw, KeyError("closed"))
        self.assertEqual(self.closed, [])

    def test_cannot_be_asked(self) -> None:
        """What pika refuses to send is a failure."""
        self.failureResultOf(self.channel.call("no_such_method", 2.0), AttributeError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Impl:
    """pika's connection."""

    is_open = True
    bytes_received = 0
    server_properties = {"version": b"3.10.8-rc1", "product": "RabbitMQ"}

    def channel(self, on_open_callback: Any) -> None:
        self.opened = on_open_callback


class ConnectionTests(SynchronousTestCase):
    """`Connection`"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.impl = Impl()
        self.closed: Deferred[Any] = Deferred()
        self.aborted = 0
        transport = SimpleNamespace(abortConnection=self.abort)
        protocol = SimpleNamespace(_impl=self.impl, closed=self.closed, farewell=None, transport=transport)
        self.connection = Connection(protocol, self.clock)

    def abort(self) -> None:
        self.aborted += 1
        self.closed.callback(ConnectionError("aborted"))

    def test_version(self) -> None:
        """What the server says of itself."""
        self.assertEqual(self.connection.version, (3, 10))
        self.assertEqual(self.connection.server_says("product"), "RabbitMQ")
        self.impl.server_properties = {}
        self.assertEqual((self.connection.version, self.connection.server_says("product")), ((0, 0), ""))

    def test_silent(self) -> None:
        """A server that says nothing for some looks has its connection aborted, with that reason."""
        for _ in range(10):
            self.impl.bytes_received += 1
            self.clock.advance(LOOK_SECONDS)
        self.clock.pump([LOOK_SECONDS] * (MOST_SILENT_LOOKS - 1))
        self.assertEqual(self.aborted, 0)
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.aborted, 1)
        self.assertEqual(self.successResultOf(self.connection.lost), "it does not answer")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stalled(self) -> None:
        """A process of ours that could look for a minute at nothing does not take the server for silent."""
        self.clock.advance(60.0)
        self.assertEqual(self.aborted, 0)

    def test_lost(self) -> None:
        """With the connection all that waits for an AMQP channel fails."""
        opening = self.connection.channel(2.0)
        self.closed.callback(ConnectionError("the cable"))
        self.failureResultOf(opening, ConnectionError)
        self.assertIn("the cable", self.successResultOf(self.connection.lost))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_opened_late(self) -> None:
        """An AMQP channel that is opened when nothing waits for it any more is closed."""
        opening = self.connection.channel(2.0)
        self.clock.advance(2.0)
        self.failureResultOf(opening, TimeoutError)
        raw = Raw()
        self.impl.opened(raw)
        self.assertFalse(raw.is_open)


class DescribeTests(SynchronousTestCase):
    """`describe`"""

    def test_describe(self) -> None:
        """What RabbitMQ says is repeated with its number, and nothing is told by the name of an exception alone."""
        from pika.exceptions import ChannelClosedByBroker

        missing = ChannelClosedByBroker(404, "NOT_FOUND - no queue 'q'")
        self.assertEqual(describe(missing), "NOT_FOUND - no queue 'q' (404)")
        self.assertTrue(is_missing(missing))
        self.assertFalse(is_missing(ChannelClosedByBroker(403, "ACCESS_REFUSED")))
        self.assertEqual(describe(TimeoutError()), "it does not answer")
        self.assertEqual(describe(NotDurable("why")), "why")
        self.assertEqual(describe(OSError("no such file")), "OSError: no such file")
