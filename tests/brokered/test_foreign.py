"""The channels of other programs over any broker: the fake one, in each of its forms."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from openhqm.brokered.foreign import ForeignOverBroker
from openhqm.errors import NotDurable
from openhqm.interfaces import Acks, BrokerTraits, IBrokerDelivery, IForeignBroker, IReceiver, Message, Properties
from openhqm.interfaces.broker import REPLY_CHANNEL
from openhqm.testing.fake_broker import FakeBroker
from openhqm.testing.fake_server import FakeServer


@implementer(IReceiver)
class Receiver:
    def __init__(self) -> None:
        self.deliveries: list[IBrokerDelivery] = []
        self.lost_for: list[str] = []

    def received(self, delivery: IBrokerDelivery) -> None:
        self.deliveries.append(delivery)

    def lost(self, reason: str) -> None:
        self.lost_for.append(reason)

    def dropped(self, count: int) -> None:
        raise AssertionError("this product does not tell")


class ForeignOverBrokerTests(SynchronousTestCase):
    def make(self, **traits: Any) -> ForeignOverBroker:
        clock, made = Clock(), BrokerTraits(**traits)
        self.broker = FakeBroker(FakeServer(), clock, made)
        foreign = ForeignOverBroker(self.broker)
        verifyObject(IForeignBroker, foreign)
        self.successResultOf(foreign.start())
        self.successResultOf(self.broker.ensure("in"))
        return foreign

    def test_received(self) -> None:
        """A message has its channel for a topic, and the channel for its reply."""
        foreign, receiver = self.make(), Receiver()
        foreign.subscribe("b", ["in"], 5, receiver).credit(5)
        message = Message(b"1", {"X-A": "b", REPLY_CHANNEL: "out"})
        self.successResultOf(foreign.publish("in", message))
        (delivery,) = receiver.deliveries
        verifyObject(IBrokerDelivery, delivery)
        self.assertEqual(delivery.message, Message(b"1", {"X-A": "b"}, None, Properties("in", reply_to="out")))
        self.successResultOf(delivery.ack())
        self.assertEqual(self.successResultOf(self.broker.depth("in")), 0)

    def test_leases(self) -> None:
        """Where deliveries are leased, each lease is kept until it is settled, or for as long as the product allows."""
        clock, receiver = Clock(), Receiver()
        self.broker = FakeBroker(FakeServer(), clock, BrokerTraits(lease_seconds=3.0, longest_lease_seconds=60.0))
        foreign = ForeignOverBroker(self.broker, clock=clock)
        self.successResultOf(foreign.start())
        self.successResultOf(self.broker.ensure("in"))
        foreign.subscribe("b", ["in"], 5, receiver).credit(5)
        for body in (b"1", b"2"):
            self.successResultOf(foreign.publish("in", Message(body)))
        first, second = receiver.deliveries
        self.successResultOf(first.ack())
        clock.pump([0.5] * 60)
        self.assertEqual((len(receiver.deliveries), second.revoked.called), (2, False))
        clock.pump([0.5] * 80)
        self.assertTrue(second.revoked.called)
        self.assertEqual(receiver.deliveries[2].message.body, b"2")
        self.successResultOf(foreign.stop())
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_properties_of_its_own(self) -> None:
        """A broker that knows more of its messages says so, and that stands."""
        foreign, receiver = self.make(), Receiver()
        foreign.subscribe("b", ["in"], 5, receiver).credit(5)
        message = Message(b"1", {"X-A": "b"}, None, Properties("in", identity="7"))
        self.successResultOf(foreign.publish("in", message))
        self.assertEqual(receiver.deliveries[0].message, message)

    def test_position(self) -> None:
        """Where a message lies says which one it is."""
        foreign, receiver = self.make(acks=Acks.PREFIX, native_partitions=True, requeues=False), Receiver()
        foreign.subscribe("b", ["in"], 5, receiver).credit(5)
        for _ in range(2):
            self.successResultOf(foreign.publish("in", Message(b"1", {}, "k")))
        first, second = (each.message.properties for each in receiver.deliveries)
        assert first is not None and second is not None and first.message_id is not None
        self.assertNotEqual(first.message_id, second.message_id)
        self.assertIs(foreign.acks, Acks.PREFIX)

    def test_failures(self) -> None:
        """A channel that is missing is told, and so is what was not published."""
        foreign, receiver = self.make(), Receiver()
        foreign.subscribe("b", ["missing"], 5, receiver)
        self.broker._clock.advance(0)  # type: ignore[attr-defined]
        self.assertEqual(len(receiver.lost_for), 1)
        self.failureResultOf(foreign.publish("missing", Message(b"1")), NotDurable)
        self.failureResultOf(foreign.ask("in", Message(b"1"), None), NotDurable)
