"""The contract of a broker notices what an adapter acknowledges, or reconnects, against its promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from openhqm.interfaces import Message
from openhqm.testing import FakeBroker, FakeServer
from openhqm.testing.fake_channel import Claim, FakeChannel
from openhqm.testing.fake_delivery import FakeDelivery, FakeSubscription
from openhqm.testing.fake_log import FakeLog
from openhqm.testing.fake_queue import FakeQueue
from tests.testing.broken_promises import Broken


class SettlingTests(Broken):
    """Promises about acknowledgements and leases"""

    def test_ack_forgotten(self) -> None:
        """An acknowledgement that does not reach the server."""

        def forget(queue: FakeQueue, claim: Claim) -> None:
            claim.consumer.forget(claim)

        for form in ("amqp", "sqs", "mqtt"):
            for test in ("test_acknowledged", "test_acknowledged_together", "test_acknowledged_inside_received"):
                self.noticed(form, test, FakeQueue, "acknowledge", forget)

    def test_ack_of_a_prefix(self) -> None:
        """An acknowledgement that takes earlier deliveries with it."""

        def up_to(queue: FakeQueue, claim: Claim) -> None:
            for each in [each for each in queue.claims() if each.number <= claim.number]:
                acknowledge(queue, each)

        acknowledge = FakeQueue.acknowledge
        self.noticed("amqp", "test_each_alone", FakeQueue, "acknowledge", up_to)
        self.noticed("amqp", "test_room_for_others", FakeQueue, "acknowledge", up_to)

    def test_ack_beyond(self) -> None:
        """A position that is committed one too far, or one too short."""
        acknowledge = FakeLog.acknowledge
        for shift in (1, -1):
            self.noticed(
                "kafka",
                "test_each_alone",
                FakeLog,
                "acknowledge",
                lambda log, claim, shift=shift: acknowledge(log, evolve(claim, number=claim.number + shift)),
            )

    def test_commit_moved_back(self) -> None:
        """A late acknowledgement of an earlier position that moves the committed one back."""
        act = FakeDelivery._act

        def move_back(delivery: FakeDelivery, how: Callable[[Claim], None]) -> None:
            if not delivery.forgotten:
                return act(delivery, how)
            log, claim = cast(FakeLog, delivery._channel), delivery._claim
            partition = log._partition_of(claim)
            partition.committed = claim.number + 1
            partition.messages[claim.number + 1] = Message(b"1")
            return None

        self.noticed("kafka", "test_late_ack_of_an_earlier_one", FakeDelivery, "_act", move_back)

    def test_not_revoked(self) -> None:
        """A delivery that does not say that it was revoked."""
        for test in ("test_not_acknowledged", "test_stopped_while_away", "test_disconnected", "test_deleted"):
            self.noticed("amqp", test, FakeDelivery, "revoke", lambda delivery, reason: None)
        self.noticed("sqs", "test_unattended", FakeDelivery, "revoke", lambda delivery, reason: None)

    def test_ack_after_revoked(self) -> None:
        """An acknowledgement that is said to have worked after the delivery was revoked."""
        tell = FakeBroker.tell

        def pretend(broker: FakeBroker, name: str, act: Callable[[], object]) -> Deferred[None]:
            return tell(broker, name, act).addErrback(lambda failure: None)

        self.noticed("sqs", "test_unattended", FakeBroker, "tell", pretend)
        self.noticed("amqp", "test_not_acknowledged", FakeBroker, "tell", pretend)

    def test_kept_after_stop(self) -> None:
        """A client that is stopped and keeps what it had."""
        for form in ("amqp", "mqtt", "mqtt-single"):
            self.noticed(form, "test_not_acknowledged", FakeQueue, "take_back", lambda queue, claims, reason: None)

    def test_requeue_is_an_ack(self) -> None:
        """A message that is dropped when it is requeued."""
        self.noticed("amqp", "test_handed_back", FakeQueue, "requeue", FakeQueue.acknowledge)
        self.noticed("amqp", "test_requeued_to_another", FakeQueue, "requeue", FakeQueue.acknowledge)

    def test_requeued_after_the_lease(self) -> None:
        """A message that is not delivered again before its lease ends."""

        def wait(queue: FakeQueue, claim: Claim) -> None:
            claim.consumer.forget(claim)

        self.noticed("sqs", "test_handed_back", FakeQueue, "requeue", wait)

    def test_count_that_stands(self) -> None:
        """A redelivery count that only says whether there was a delivery before."""
        claim = FakeChannel.claim

        def flag(channel: FakeChannel, message: Message, number: int, redeliveries: int, *rest: Any) -> Claim:
            return claim(channel, message, number, min(1, redeliveries), *rest)

        self.noticed("amqp", "test_redelivery_count", FakeChannel, "claim", flag)

    def test_lease_without_end(self) -> None:
        """A lease that does not end."""
        claim = FakeChannel.claim

        def endless(channel: FakeChannel, *rest: Any) -> Claim:
            return evolve(claim(channel, *rest), lease_end=None)

        for form in ("sqs", "pubsub, short lease"):
            self.noticed(form, "test_unattended", FakeChannel, "claim", endless)

    def test_extension_ignored(self) -> None:
        """An extension that does nothing, or always adds the same."""
        for test in ("test_extended", "test_each_its_own"):
            self.noticed("sqs", test, FakeDelivery, "_extend", lambda delivery, until: None)
        self.noticed("sqs", "test_extended_further", FakeDelivery, "_extend", lambda delivery, until: None)

    def test_extended_for_ever(self) -> None:
        """Extensions beyond the longest lease."""

        def extend(delivery: FakeDelivery, until: float) -> None:
            delivery._check()
            delivery._claim.lease_end = until

        self.noticed("sqs, short lease", "test_longest_lease", FakeDelivery, "_extend", extend)


class ConnectingTests(Broken):
    """Promises about connections"""

    def test_silent(self) -> None:
        """A reason that is not given."""
        for test in ("test_away", "test_probed_in_vain"):
            self.noticed("amqp", test, FakeBroker, "unavailable_reason", property(lambda broker: None))

    def test_not_told_of_connections(self) -> None:
        """`on_connected` that is only called for the first connection, or not for that."""
        come_back = FakeBroker.come_back

        def without_first(broker: FakeBroker) -> None:
            connect(broker, silent=broker._probes is not None)

        def without_later(broker: FakeBroker) -> None:
            connect(broker, silent=broker._probes is None)

        def connect(broker: FakeBroker, silent: bool) -> None:
            calls, broker.on_connected = broker.on_connected, [] if silent else broker.on_connected
            come_back(broker)
            broker.on_connected = calls

        self.noticed("amqp", "test_goes_on", FakeBroker, "come_back", without_later)
        self.noticed("amqp", "test_on_connected_at_first", FakeBroker, "come_back", without_first)

    def test_subscriptions_end(self) -> None:
        """Subscriptions that end with the connection."""
        disconnect = FakeSubscription.disconnect

        def end(subscription: FakeSubscription, reason: str) -> None:
            disconnect(subscription, reason)
            subscription.over = True

        self.noticed("amqp", "test_goes_on", FakeSubscription, "disconnect", end)
        self.noticed("amqp", "test_disconnected", FakeSubscription, "disconnect", end)

    def test_loss_with_the_connection(self) -> None:
        """A connection that is lost and said to be the loss of the channel."""
        disconnect = FakeSubscription.disconnect

        def lose(subscription: FakeSubscription, reason: str) -> None:
            disconnect(subscription, reason)
            subscription._receiver.lost(reason)

        self.noticed("amqp", "test_goes_on", FakeSubscription, "disconnect", lose)

    def test_answers_while_away(self) -> None:
        """A client that tells what it remembers while the broker is away."""
        self.noticed("amqp", "test_asked_while_away", FakeBroker, "exists", lambda broker, channel: succeed(True))
        self.noticed("amqp", "test_asked_while_away", FakeBroker, "depth", lambda broker, channel: succeed(0))

    def test_forgets_with_a_restart(self) -> None:
        """A server that loses what it has confirmed."""

        def restart(server: FakeServer) -> None:
            server.go_away()
            for name in server.channels:
                server.purge(name)
            server.come_back()

        self.noticed("amqp", "test_restarted", FakeServer, "restart", restart)

    def test_probed_before_it_was(self) -> None:
        """A probe that is over before it has begun."""
        self.noticed("amqp", "test_probed", FakeBroker, "when_probed", lambda broker: succeed(None))
