"""What a broker out of a pulled product does about a product that waits, goes away, or delivers a message twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.interfaces import BrokerTraits, Message
from openhqm.pulled.broker import PulledBroker
from openhqm.pulled.product import Taken, Unreachable
from openhqm.testing.broker_bench import Inbox

LEASE = 10.0


class Waiting:
    """A product that answers when the test says so; ``probing`` None: it can be reached."""

    def __init__(self) -> None:
        self.probing: Exception | None = None
        self.probes = 0
        self.taking: list[Deferred[Any]] = []
        self.publishing: Deferred[Any] = Deferred()

    def probe(self) -> None:
        self.probes += 1
        if self.probing is not None:
            raise self.probing

    def publish(self, channel: str, messages: Sequence[Message]) -> Deferred[Any]:
        return self.publishing

    def take(self, channel: str, most: int) -> Deferred[Any]:
        self.taking.append(Deferred())
        return self.taking[-1]

    def ack(self, receipt: Any) -> None:
        """It is forgotten."""

    requeue = ack
    make = ack

    def extend(self, receipt: Any, seconds: float) -> Any:
        return receipt

    def depth(self, channel: str) -> None:
        return None


class PulledTests(SynchronousTestCase):
    """`openhqm.pulled.broker.PulledBroker` over a product that keeps a question until there is a message"""

    def setUp(self) -> None:
        self.clock, self.product, self.inbox = Clock(), Waiting(), Inbox()
        self.broker = PulledBroker(
            self.product,
            BrokerTraits(lease_seconds=LEASE),
            self.clock,
            maybeDeferred,
            seconds=3.0,
            probe_seconds=30.0,
            take_seconds=100.0,
            random=lambda: 0.5,
        )
        self.connected: list[object] = []
        self.broker.on_connected.append(lambda: self.connected.append(None))
        self.broker.start()
        self.inbox.subscription = self.broker.consume("requests", self.inbox)
        self.inbox.subscription.credit(5)
        self.clock.advance(0)

    def deliver(self, *ids: str) -> None:
        """Answer the question that waits."""
        self.product.taking[-1].callback([Taken(id, Message(id.encode()), None, id) for id in ids])

    def test_lease_from_arrival(self) -> None:
        """A message that came after a minute has its whole lease."""
        self.clock.advance(60)
        self.deliver("a")
        self.clock.advance(LEASE - 0.1)
        self.assertEqual(self.inbox.revoked, [])
        self.clock.advance(0.2)
        self.assertEqual(len(self.inbox.revoked), 1)

    def test_waits_for_nothing(self) -> None:
        """A question without an answer is asked again, and nothing is said of the product."""
        self.clock.advance(100)
        self.clock.advance(1)
        self.assertEqual(len(self.product.taking), 2)
        self.assertIsNone(self.broker.unavailable_reason)
        self.assertEqual(len(self.connected), 1)

    def test_delivered_again_while_out(self) -> None:
        """The older delivery of a message is revoked before the newer one is received, and settles nothing."""
        self.deliver("a", "b")
        self.clock.advance(0.1)
        self.deliver("a")
        self.assertEqual(self.inbox.bodies, [b"a", b"b", b"a"])
        self.assertEqual(self.inbox.revoked, [self.inbox.deliveries[0]])
        self.failureResultOf(self.inbox.deliveries[0].ack(), NotDurable)
        self.successResultOf(self.inbox.deliveries[2].ack())

    def test_receiver_breaks_down(self) -> None:
        """A message that its receiver cannot take is named in the log, and holds up no other one."""

        def received(delivery: Any) -> None:
            if delivery.message.body == b"a":
                raise ValueError("odd")
            self.inbox.deliveries.append(delivery)

        self.patch(self.inbox, "received", received)
        self.deliver("a", "b")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.inbox.bodies, [b"b"])
        self.clock.advance(1)
        self.deliver("c")
        self.assertEqual(self.inbox.bodies, [b"b", b"c"])

    def test_adapter_breaks_down(self) -> None:
        """What an adapter raises that it should not is in the log, once, and the channel is asked again."""
        with capturedLogs() as said:
            for number in range(3):
                self.product.taking[-1].errback(KeyError("ReceiptHandle"))
                self.clock.advance(6)
                self.assertEqual(len(self.product.taking), number + 2)
        self.assertEqual([event["reason"] for event in said], ["KeyError: 'ReceiptHandle'"])

    def test_away(self) -> None:
        """A call that fails as if the product were away is followed by a look, and not by 30 s of failures."""
        self.product.probing = NotDurable("no route")
        self.product.taking[-1].errback(Unreachable("the connection was lost"))
        self.assertEqual(self.broker.unavailable_reason, "no route")
        self.product.probing = None
        self.clock.advance(1)
        self.assertIsNone(self.broker.unavailable_reason)
        self.assertEqual(len(self.connected), 2)
        self.assertEqual(len(self.product.taking), 2)

    def test_only_a_connection(self) -> None:
        """Where the look finds the product there, it was never unavailable, and is connected once more."""
        self.product.taking[-1].errback(Unreachable("the connection was lost"))
        self.assertIsNone(self.broker.unavailable_reason)
        self.assertEqual((self.product.probes, len(self.connected)), (2, 2))

    def test_leases_end_with_the_connection(self) -> None:
        """What is out is revoked when the connection that had it is lost, and the product is looked for at once."""
        self.deliver("a", "b")
        self.product.probing = NotDurable("no route")
        self.broker.connection_lost("the connection was lost")
        self.assertEqual(self.inbox.revoked, self.inbox.deliveries)
        self.failureResultOf(self.inbox.deliveries[0].ack(), NotDurable)
        self.assertEqual(self.broker.unavailable_reason, "no route")

    def test_no_answer(self) -> None:
        """A publish without an answer has an outcome in time, which says that it may have been done."""
        publishing = self.broker.publish("requests", [Message(b"1")])
        self.clock.advance(3)
        (outcome,) = self.successResultOf(publishing)
        self.assertIsInstance(outcome, NotDurable)
        self.assertTrue(outcome.maybe_done)

    def test_stop(self) -> None:
        """What waits for an answer does not keep a stop waiting: it fails, and no timer is left."""
        publishing = self.broker.publish("requests", [Message(b"1")])
        self.successResultOf(self.broker.stop())
        self.assertIsInstance(self.successResultOf(publishing)[0], NotDurable)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failures_pause(self) -> None:
        """A channel whose questions fail is asked less and less often."""
        for _ in range(8):
            self.product.taking[-1].errback(NotDurable("too many requests"))
            self.clock.advance(5)
        self.assertEqual(len(self.product.taking), 9)
        self.product.taking[-1].errback(NotDurable("too many requests"))
        self.clock.advance(4)
        self.assertEqual(len(self.product.taking), 9)
