"""What becomes of messages that have come from RabbitMQ, and of consumers, as time passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.interfaces.legacy import IBrokerDelivery
from openhqm.rabbitmq import consuming
from openhqm.rabbitmq.delivery import RabbitMQDelivery
from openhqm.rabbitmq.lending import IDLE_SECONDS, Place
from openhqm.rabbitmq.topology import Topology


class Raw:
    """What pika's channel is to a consumer."""

    is_closed = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self.said: list[tuple[str, int]] = []

    def add_on_cancel_callback(self, callback: Callable[[Any], None]) -> None:
        self.cancelled = callback

    def basic_qos(self, prefetch_count: int) -> None:
        pass

    def basic_consume(self, queue: str, came: Any, callback: Callable[[Any], None]) -> str:
        self._protocol.consumers.append((self, came, callback))
        return f"tag-{len(self._protocol.consumers)}"

    def basic_ack(self, tag: int) -> None:
        self.said.append(("ack", tag))

    def basic_nack(self, tag: int, requeue: bool) -> None:
        self.said.append(("nack", tag))


class Channel:
    """pika's channel for Twisted."""

    is_open = True
    is_closed = False

    def __init__(self, protocol: Protocol) -> None:
        self._channel = Raw(protocol)
        self._cancelling: list[Deferred[None]] = []
        self.on_closed: Deferred[Any] = Deferred()

    def queue_declare(self, **words: Any) -> Deferred[Any]:
        return succeed(SimpleNamespace(method=SimpleNamespace(message_count=0)))

    def basic_cancel(self, tag: str) -> Deferred[None]:
        cancelled: Deferred[None] = Deferred()
        self._cancelling.append(cancelled)
        return cancelled

    @property
    def cancelling(self) -> int:
        """How many were asked to be cancelled, and are not yet."""
        return len(self._cancelling)

    def cancel_ok(self) -> None:
        """pika takes the answer to one for the answer to all that were asked by then."""
        cancelling, self._cancelling = self._cancelling, []
        for cancelled in cancelling:
            cancelled.callback(None)

    def close(self) -> None:
        self.is_open = False
        self.is_closed = True


class Protocol:
    """A connection of pika's."""

    is_closed = False

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self.consumers: list[tuple[Raw, Any, Callable[[Any], None]]] = []

    def channel(self) -> Deferred[Channel]:
        self.channels.append(Channel(self))
        return succeed(self.channels[-1])

    def consume_ok(self) -> None:
        """Answer to whoever has asked last to consume."""
        _, _, callback = self.consumers[-1]
        callback(None)

    def deliver(self, number: int) -> None:
        """To the latest consumer."""
        raw, came, _ = self.consumers[-1]
        came(raw, SimpleNamespace(delivery_tag=number), SimpleNamespace(headers={}), b"%d" % number)


class PlaceTests(SynchronousTestCase):
    """`Place`"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.protocol = Protocol()
        self.passed_on: list[bytes] = []
        self.without_answer: list[str] = []

    def place(self, *lanes: str, patient: bool = False) -> Place:
        topology = Topology(self.clock, "", 1.5)
        topology.up(self.protocol)

        def pass_on(delivery: RabbitMQDelivery, delay: float, rank: int) -> Deferred[None]:
            self.passed_on.append(delivery.body)
            return delivery.ack()

        def without_answer() -> None:
            self.without_answer.append("apart")

        return Place("q", lanes, False, topology, self.clock, self.clock, 1.0, pass_on, without_answer, patient)

    def lent(self, place: Place, number: int) -> IBrokerDelivery:
        """One, to whoever has a consumer of their own for it."""
        waiting = place.receive(1)
        self.protocol.consume_ok()
        self.protocol.deliver(number)
        self.clock.advance(0)
        (delivery,) = self.successResultOf(waiting)
        return delivery

    def bodies(self, waiting: Deferred[Sequence[IBrokerDelivery]]) -> list[bytes]:
        return [delivery.body for delivery in self.successResultOf(waiting)]

    def test_expected_from_a_lost_lane(self) -> None:
        """What has come by one lane waits for no other one whose channel is gone, with all that was to come by it."""
        place = self.place("q!high", "q")
        waiting = place.receive(5)
        place.expect(0, 1)
        place.came(1, Raw(self.protocol), SimpleNamespace(delivery_tag=1), SimpleNamespace(headers={}), b"normal")
        self.clock.advance(0)
        self.assertNoResult(waiting)
        place.lost(0, "the channel is closed")
        self.clock.advance(0)
        self.assertEqual(self.bodies(waiting), [b"normal"])

    def test_deleted_while_a_consumer_is_added(self) -> None:
        """A queue that is deleted just then is consumed from again soon, over the same connection."""
        place = self.place("q")
        place.up(self.protocol)
        loan = self.lent(place, 1)
        place.receive(5)
        self.protocol.consumers[0][0].cancelled(SimpleNamespace(method=SimpleNamespace(consumer_tag="tag-1")))
        self.successResultOf(loan.taken_back)
        self.assertEqual(len(self.protocol.consumers), 2)
        self.clock.advance(consuming.RETRY_SECONDS)
        self.clock.advance(0)
        self.assertEqual(len(self.protocol.consumers), 3)
        self.protocol.consume_ok()
        self.clock.advance(consuming.ANSWER_SECONDS)
        self.assertEqual((place.troubles, self.without_answer), ([], []))

    def test_nobody_asks_after_a_loan(self) -> None:
        """What a patient one keeps beside a loan is for others a second after that has ended, if nobody asks for it."""
        place = self.place("q", patient=True)
        place.up(self.protocol)
        loan = self.lent(place, 1)
        self.protocol.deliver(2)
        self.clock.advance(0)
        self.clock.advance(IDLE_SECONDS)
        self.assertEqual((place.arrived, self.protocol.channels[0].cancelling), (1, 0))
        loan.ack()
        self.clock.advance(IDLE_SECONDS)
        self.protocol.channels[0].cancel_ok()
        self.assertEqual((self.passed_on, place.arrived), ([b"2"], 0))

    def test_several_consumers(self) -> None:
        """What has come is not published anew before all of them are cancelled: it would come back to the others."""
        place = self.place("q", patient=True)
        place.up(self.protocol)
        loans = [self.lent(place, 1), self.lent(place, 2)]
        self.protocol.deliver(3)
        for loan in loans:
            loan.ack()
        self.clock.advance(IDLE_SECONDS)
        self.protocol.channels[0].cancel_ok()
        self.assertEqual((self.passed_on, self.protocol.channels[0].cancelling), ([], 1))
        self.protocol.channels[0].cancel_ok()
        self.assertEqual(self.passed_on, [b"3"])
