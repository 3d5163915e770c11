"""The fake broker misbehaves as it is told to, and tells a caller that breaks a rule of the seam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.interfaces import BrokerTraits, ChannelMissing, Message
from openhqm.testing import FORMS, FakeBroker, FakeServer, PublishResult
from openhqm.testing.broker_bench import Inbox

Q = "requests"


class Controls(SynchronousTestCase):
    """A server with one channel and one client."""

    form = "amqp"

    def setUp(self) -> None:
        self.clock = Clock()
        self.traits = FORMS[self.form]
        self.server = FakeServer(self.traits)
        self.server.provide(Q)
        self.broker = self.make()

    def make(self) -> FakeBroker:
        broker = FakeBroker(self.server, self.clock, self.traits, publish_seconds=10.0)
        self.successResultOf(broker.start())
        return broker

    def publish(self, *bodies: bytes, broker: FakeBroker | None = None) -> list[bool]:
        """Whether each was confirmed."""
        return [each is None for each in self.successResultOf(self.publishing(*bodies, broker=broker))]

    def publishing(self, *bodies: bytes, broker: FakeBroker | None = None) -> Deferred[Any]:
        return (broker or self.broker).publish(Q, [Message(body) for body in bodies])

    def consume(self, credit: int = 10, broker: FakeBroker | None = None) -> Inbox:
        inbox = Inbox()
        inbox.subscription = (broker or self.broker).consume(Q, inbox)
        inbox.subscription.credit(credit)
        return inbox

    def lying(self) -> list[bytes]:
        """What is at the server, out or not."""
        return [message.body for message in self.server.messages(Q)]


class PublishingTests(Controls):
    """What becomes of messages"""

    def test_refused(self) -> None:
        """A refused message is not stored, and was not published."""
        self.broker.publish_result = PublishResult.REFUSED
        self.assertEqual(self.publish(b"1", b"2"), [False, False])
        self.assertEqual((self.lying(), self.server.published), ([], []))

    def test_unconfirmed(self) -> None:
        """A message whose confirmation gets lost is stored, and delivered."""
        inbox = self.consume()
        self.broker.publish_result = PublishResult.UNCONFIRMED
        self.assertEqual(self.publish(b"1"), [False])
        self.assertEqual(inbox.bodies, [b"1"])
        self.assertEqual(self.server.published, [(Q, Message(b"1"))])

    def test_stalled(self) -> None:
        """A message that stalls is given up in time, and the others of its batch are taken."""
        self.broker.publish_result = lambda channel, message: (
            PublishResult.STALLED if message.body == b"2" else PublishResult.CONFIRMED
        )
        publishing = self.publishing(b"1", b"2", b"3")
        self.assertNoResult(publishing)
        self.clock.advance(9.9)
        self.assertNoResult(publishing)
        self.clock.advance(0.2)
        self.assertEqual([each is None for each in self.successResultOf(publishing)], [True, False, True])
        self.assertEqual(self.lying(), [b"1", b"3"])

    def test_stalled_until_disconnected(self) -> None:
        """A message that stalls is given up when the connection is lost, and when the client is stopped."""
        self.broker.publish_result = PublishResult.STALLED
        publishing = self.publishing(b"1")
        self.broker.lose_connection("the cable is cut")
        (outcome,) = self.successResultOf(publishing)
        self.assertEqual(outcome.reason, "the cable is cut")
        self.broker.come_back()
        publishing = self.publishing(b"1")
        self.successResultOf(self.broker.stop())
        self.assertEqual(len(self.successResultOf(publishing)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_blocked(self) -> None:
        """A client that is blocked publishes nothing, says why, and is delivered to all the same."""
        self.publish(b"1")
        self.broker.blocked = "the disk of the broker is full"
        self.assertEqual(self.publish(b"2"), [False])
        self.assertEqual(self.broker.unavailable_reason, "the disk of the broker is full")
        inbox = self.consume()
        self.successResultOf(inbox.deliveries[0].ack())
        self.assertEqual((inbox.bodies, self.lying()), ([b"1"], []))

    def test_missing(self) -> None:
        """A message for a channel that is missing is told from one that the broker did not take."""
        (outcome,) = self.successResultOf(self.broker.publish("other", [Message(b"1")]))
        assert isinstance(outcome, ChannelMissing)
        self.assertEqual(outcome.channel, "other")


class ServerTests(Controls):
    """What happens to a server"""

    def test_duplicate(self) -> None:
        """Everything that was not acknowledged lies there twice, and is delivered twice."""
        inbox = self.consume(1)
        self.publish(b"1", b"2", b"3")
        self.successResultOf(inbox.deliveries[0].ack())
        self.server.duplicate(Q)
        inbox.subscription.credit(10)
        self.assertEqual(inbox.bodies, [b"1", b"2", b"3", b"2", b"3"])

    def test_purge(self) -> None:
        """What waits is gone, and no client is told; what is out can be acknowledged."""
        inbox = self.consume(1)
        self.publish(b"1", b"2", b"3")
        self.server.purge(Q)
        self.assertEqual((self.lying(), inbox.revoked, inbox.lost_for), ([b"1"], [], []))
        self.successResultOf(inbox.deliveries[0].ack())
        self.publish(b"4")
        self.assertEqual(inbox.bodies, [b"1", b"4"])

    def test_everything_lost(self) -> None:
        """Every channel is gone, every delivery was revoked, and every client is connected again."""
        inbox, connections = self.consume(1), []
        self.broker.on_connected.append(lambda: connections.append(dict(self.server.channels)))
        self.publish(b"1", b"2")
        self.server.lose_everything()
        self.assertEqual((len(inbox.revoked), len(inbox.lost_for), connections), (1, 1, [{}]))
        self.assertIs(self.successResultOf(self.broker.exists(Q)), False)
        self.assertIsNone(self.broker.unavailable_reason)

    def test_drops_when_full(self) -> None:
        """A server that keeps a window and drops the rest confirms what it drops."""
        self.server = FakeServer(evolve(self.traits, keeps=2))
        self.traits = self.server.traits
        self.server.provide(Q)
        broker = self.make()
        self.assertEqual(self.publish(b"1", b"2", b"3", broker=broker), [True, True, False])
        self.server.drops_when_full = True
        self.assertEqual(self.publish(b"3", broker=broker), [True])
        self.assertEqual(self.lying(), [b"1", b"2"])

    def test_most_channels(self) -> None:
        """A server makes no more channels than the product allows."""
        server = FakeServer(evolve(self.traits, most_channels=2))
        broker = FakeBroker(server, self.clock, server.traits)
        broker.start()
        for name in ("1", "2", "1"):
            self.successResultOf(broker.ensure(name))
        self.failureResultOf(broker.ensure("3"), NotDurable)

    def test_clients_agree(self) -> None:
        """All clients of a server take it for the same product, and for one that there can be."""
        self.assertRaises(AssertionError, FakeBroker, self.server, self.clock, FORMS["kafka"])
        impossible = evolve(FORMS["kafka"], lease_seconds=1.0)
        self.assertRaises(ValueError, FakeBroker, FakeServer(), self.clock, impossible)
        self.assertEqual(FakeBroker(FakeServer(), self.clock).traits, BrokerTraits())


class ProcessTests(Controls):
    """What happens to a process"""

    def test_crash(self) -> None:
        """What a killed process had comes again at once, and nothing is called in it any more."""
        inbox = self.consume()
        self.publish(b"1", b"2")
        self.broker.publish_result = PublishResult.STALLED
        publishing = self.publishing(b"3")
        self.broker.crash()
        self.assertEqual(inbox.revoked, [])
        self.assertNoResult(publishing)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNoResult(inbox.deliveries[0].ack())
        again = self.consume(broker=self.make())
        self.assertEqual([each.redelivery_count for each in again.deliveries], [1, 1])
        self.server.delete(Q)
        self.assertEqual((len(again.lost_for), inbox.lost_for), (1, []))

    def kill_at(self, name: str, after: bool) -> None:
        """The process ends at the next operation of this name."""

        def step(operation: str, act: Callable[[], Deferred[Any]]) -> Deferred[Any]:
            if operation != name:
                return act()
            if after:
                act()
            self.broker.crash()
            return Deferred()

        self.broker.step = step

    def test_killed_before_and_after(self) -> None:
        """A process can be ended before each operation at the server, and after it."""
        for name, before, afterwards in (("publish", [b"1"], [b"1", b"2"]), ("ack", [b"1"], []), ("ensure", [], [])):
            for after in (False, True):
                self.setUp()
                self.publish(b"1")
                inbox = self.consume(1)
                self.kill_at(name, after)
                operations: dict[str, Callable[[], Deferred[Any]]] = {
                    "publish": lambda: self.publishing(b"2"),
                    "ack": inbox.deliveries[0].ack,
                    "ensure": lambda: self.broker.ensure("other"),
                }
                waiting = operations[name]()
                self.assertNoResult(waiting)
                if name == "ensure":
                    self.assertEqual("other" in self.server.channels, after)
                else:
                    self.assertEqual(self.lying(), afterwards if after else before)

    def test_an_operation_fails(self) -> None:
        """A test can let one operation fail, done or not: an acknowledgement that was not told comes again."""
        self.publish(b"1")
        inbox = self.consume()
        names: list[str] = []

        def step(name: str, act: Callable[[], Deferred[Any]]) -> Deferred[Any]:
            names.append(name)
            return fail(NotDurable("the connection broke")) if name == "ack" else act()

        self.broker.step = step
        self.failureResultOf(inbox.deliveries[0].ack(), NotDurable)
        self.broker.lose_connection()
        self.broker.come_back()
        self.assertEqual((inbox.bodies, len(inbox.revoked)), ([b"1", b"1"], 1))
        self.successResultOf(inbox.deliveries[1].requeue())
        self.publish(b"2")
        self.assertEqual(names, ["ack", "requeue", "publish"])

    def test_one_client_is_away(self) -> None:
        """One client without a connection leaves its messages to the others."""
        other = self.make()
        inbox, others = self.consume(), self.consume(broker=other)
        others.subscription.credit(0)
        self.publish(b"1")
        self.broker.lose_connection()
        self.assertEqual(self.publish(b"2"), [False])
        others.subscription.credit(5)
        self.assertEqual((inbox.bodies, others.bodies), ([b"1"], [b"1"]))


class LeaseTests(Controls):
    """What happens to a process whose broker keeps leases"""

    form = "sqs"

    def test_crash(self) -> None:
        """What a killed process had comes again when its lease ends, and not before."""
        self.publish(b"1")
        self.consume()
        self.broker.crash()
        again = self.consume(broker=self.make())
        self.clock.advance(29.0)
        self.assertEqual(again.bodies, [])
        self.clock.advance(1.0)
        self.assertEqual(again.bodies, [b"1"])

    def test_disconnected(self) -> None:
        """A lease outlasts a connection: what is out can be acknowledged when the client is connected again."""
        self.publish(b"1", b"2")
        inbox = self.consume()
        self.broker.lose_connection()
        self.failureResultOf(inbox.deliveries[0].ack(), NotDurable)
        self.broker.come_back()
        self.successResultOf(inbox.deliveries[1].ack())
        self.assertEqual((inbox.bodies, inbox.revoked), ([b"1", b"2"], []))
        self.clock.advance(30.0)
        self.assertEqual((inbox.bodies, inbox.revoked), ([b"1", b"2", b"1"], inbox.deliveries[:1]))

    def test_one_timer(self) -> None:
        """A client has one timer for all leases, at the time when the next one ends."""
        self.publish(b"1", b"2", b"3")
        inbox = self.consume()
        self.clock.advance(10.0)
        for delivery in inbox.deliveries[:2]:
            self.successResultOf(delivery.extend(60.0))
        self.assertEqual([call.getTime() for call in self.clock.getDelayedCalls()], [30.0])
        self.successResultOf(inbox.deliveries[2].ack())
        self.assertEqual([call.getTime() for call in self.clock.getDelayedCalls()], [70.0])


class RulesTests(Controls):
    """Rules of the seam for the caller"""

    def test_settled_once(self) -> None:
        """A delivery is acknowledged or requeued once."""
        self.publish(b"1")
        (delivery,) = self.consume(1).deliveries
        self.successResultOf(delivery.ack())
        self.assertRaises(AssertionError, delivery.ack)
        self.assertRaises(AssertionError, delivery.requeue)

    def test_only_what_the_product_has(self) -> None:
        """Without leases nothing is extended, and without requeueing nothing is requeued."""
        self.publish(b"1")
        (delivery,) = self.consume().deliveries
        self.assertRaises(AssertionError, delivery.extend, 10.0)
        self.use("kafka")
        self.publish(b"1")
        (delivery,) = self.consume().deliveries
        self.assertRaises(AssertionError, delivery.requeue)

    def use(self, form: str) -> None:
        self.form = form
        self.setUp()

    def test_in_order(self) -> None:
        """A product that is acknowledged in order is acknowledged in order."""
        self.use("mqtt")
        self.publish(b"1", b"2")
        first, second = self.consume().deliveries
        self.assertRaises(AssertionError, second.ack)
        self.successResultOf(first.ack())
        self.successResultOf(second.ack())

    def test_batches(self) -> None:
        """No batch is larger than the product likes."""
        self.use("sqs")
        self.assertRaises(AssertionError, self.publishing, *[b"1"] * 11)


class SharingTests(Controls):
    """How partitions are shared"""

    form = "kafka"

    def test_moved(self) -> None:
        """With another consumer some partitions move: what was out of them is revoked, and comes again there."""
        inbox = self.consume()
        self.publish(*(b"%d" % number for number in range(9)))
        self.assertEqual(inbox.out, 9)
        other = self.consume(broker=self.make())
        moved = {each.position.partition for each in inbox.revoked if each.position}
        self.assertEqual(len(moved), 1)
        self.assertEqual(sorted(other.bodies), sorted(each.message.body for each in inbox.revoked))
        self.assertEqual({each.position.partition for each in other.deliveries if each.position}, moved)

    def test_more_than_partitions(self) -> None:
        """A consumer beyond the partitions gets nothing, until another one leaves."""
        inboxes = [self.consume(broker=self.make()) for _ in range(4)]
        self.publish(*(b"%d" % number for number in range(12)))
        self.assertEqual(sorted(len(each.deliveries) for each in inboxes), [0, 4, 4, 4])
        busy = next(each for each in inboxes if each.deliveries)
        idle = next(each for each in inboxes if not each.deliveries)
        self.successResultOf(busy.subscription.stop())
        self.assertEqual(idle.bodies, [])
        for delivery in busy.deliveries:
            self.successResultOf(delivery.ack())
        self.publish(*(b"%d" % number for number in range(3)))
        self.assertEqual(len(idle.deliveries), 1)

    def test_stopped_with_a_partition_that_moves(self) -> None:
        """A consumer that was stopped leaves as soon as it has nothing out, also when that was revoked."""
        inbox = self.consume()
        self.publish(b"1")
        self.successResultOf(inbox.subscription.stop())
        other = self.consume(broker=self.make())
        self.assertEqual(len(inbox.revoked), 1)
        self.publish(b"2", b"3", b"4")
        self.assertEqual(sorted(other.bodies), [b"1", b"2", b"3", b"4"])
