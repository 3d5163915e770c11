"""The contract of a broker notices what an adapter publishes, or delivers, against its promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from attrs import evolve
from msgspec.structs import replace
from twisted.internet.defer import Deferred, fail, succeed

from openhqm.errors import NotDurable
from openhqm.interfaces import Message
from openhqm.testing import FakeBroker, FakeServer
from openhqm.testing.fake_channel import Claim, FakeChannel
from openhqm.testing.fake_delivery import FakeSubscription
from openhqm.testing.fake_log import FakeLog
from openhqm.testing.fake_publishing import FakePublishing
from openhqm.testing.fake_queue import FakeQueue
from tests.testing.broken_promises import Broken


class PublishingTests(Broken):
    """Promises about publishing and channels"""

    def changed(self, test: str, change: Callable[[Message], Message]) -> None:
        put = FakeQueue.put
        self.noticed("amqp", test, FakeQueue, "put", lambda queue, message: put(queue, change(message)))

    def test_body_changed(self) -> None:
        """A body that is not delivered byte by byte."""
        self.changed("test_intact", lambda message: replace(message, body=message.body.strip()))

    def test_header_names_changed(self) -> None:
        """Headers that do not arrive as they were."""
        self.changed(
            "test_intact",
            lambda message: replace(message, headers={key.title(): value for key, value in message.headers.items()}),
        )

    def test_key_lost(self) -> None:
        """A key that is used and not carried."""
        self.changed("test_intact", lambda message: replace(message, key=None))

    def test_cut_off(self) -> None:
        """A large body that is cut off."""
        self.changed("test_large", lambda message: replace(message, body=message.body[:65536]))

    def test_confirmed_and_dropped(self) -> None:
        """A message beyond the window that is confirmed and dropped."""
        put = FakeServer.put

        def drop(server: FakeServer, name: str, message: Message) -> None:
            if not server.channels[name].full:
                put(server, name, message)

        self.noticed("mqtt", "test_window", FakeServer, "put", drop)

    def test_missing_channel_made(self) -> None:
        """A publish that makes the channel it does not find."""
        put = FakePublishing._put

        def make_and_put(publishing: FakePublishing, name: str, *rest: Any) -> Any:
            publishing._server.provide(name)
            return put(publishing, name, *rest)

        self.noticed("amqp", "test_missing", FakePublishing, "_put", make_and_put)

    def test_too_large(self) -> None:
        """A message beyond the largest that takes its batch with it."""
        publish = FakePublishing.publish

        def all_or_nothing(publishing: FakePublishing, name: str, messages: Sequence[Message], results: Any) -> Any:
            if any(len(message.body) > 1024 * 1024 for message in messages):
                return succeed([NotDurable("too large")] * len(messages))
            return publish(publishing, name, messages, results)

        self.noticed("sqs", "test_largest", FakePublishing, "publish", all_or_nothing)

    def test_no_outcome(self) -> None:
        """A publish that waits for the connection for ever."""
        publish = FakeBroker._publish

        def patient(broker: FakeBroker, channel: str, messages: Sequence[Message]) -> Any:
            return Deferred() if broker.unavailable_reason else publish(broker, channel, messages)

        self.noticed("amqp", "test_away", FakeBroker, "_publish", patient)

    def test_failed(self) -> None:
        """A publish that fails instead of having outcomes."""
        publish = FakeBroker._publish

        def failing(broker: FakeBroker, channel: str, messages: Sequence[Message]) -> Any:
            return fail(NotDurable("away")) if broker.unavailable_reason else publish(broker, channel, messages)

        self.noticed("amqp", "test_after_stop", FakeBroker, "_publish", failing)

    def test_keys_ignored(self) -> None:
        """Native partitions that do not look at the key."""
        put = FakeLog.put
        self.noticed("kafka", "test_keys", FakeLog, "put", lambda log, message: put(log, replace(message, key=None)))

    def test_out_of_order(self) -> None:
        """A channel that delivers the youngest first."""
        self.noticed(
            "amqp",
            "test_order_of_the_calls",
            FakeQueue,
            "_oldest",
            lambda queue: max((number for number in queue._stored if number not in queue._claims), default=None),
        )

    def test_depth_of_everything(self) -> None:
        """An exact depth that counts what is out."""
        self.noticed("amqp", "test_depth", FakeQueue, "depth", lambda queue: len(queue.messages()))

    def test_made_although_not(self) -> None:
        """A channel that is made by a product that makes none."""
        self.noticed("event hubs", "test_ensure", FakeServer, "make", FakeServer.provide)


class DeliveringTests(Broken):
    """Promises about subscriptions"""

    def test_one_too_many(self) -> None:
        """One delivery more than the credit allows."""
        beyond = property(lambda self: not self.over and len(self._out) <= self._most)
        for test in ("test_nothing_before_credit", "test_credit_is_used", "test_no_credit", "test_apart"):
            self.noticed("amqp", test, FakeSubscription, "has_room", beyond)

    def test_credit_adds_up(self) -> None:
        """Credit that is added to what there was."""
        credit = FakeSubscription.credit
        self.noticed(
            "amqp",
            "test_credit_raised",
            FakeSubscription,
            "credit",
            lambda subscription, most: credit(subscription, subscription._most + most),
        )

    def test_credit_is_never_lowered(self) -> None:
        """Credit that only grows."""
        credit = FakeSubscription.credit
        self.noticed(
            "amqp",
            "test_credit_lowered",
            FakeSubscription,
            "credit",
            lambda subscription, most: credit(subscription, max(subscription._most, most)),
        )

    def test_lost_before_revoked(self) -> None:
        """A receiver that is told of the loss before its deliveries are revoked."""

        def delete(channel: FakeChannel, reason: str) -> None:
            consumers, channel.consumers = channel.consumers, []
            for consumer in consumers:
                consumer.lose(reason)
            channel.take_back(channel.claims(), reason)

        self.noticed("amqp", "test_deleted", FakeChannel, "delete", delete)

    def test_not_told_of_the_loss(self) -> None:
        """A receiver that is not told that its channel is missing."""
        self.noticed(
            "amqp", "test_missing_channel_is_lost", FakeSubscription, "lose", lambda subscription, reason: None
        )

    def test_told_too_early(self) -> None:
        """A receiver that is called before its caller has the subscription."""

        def call_at_once(broker: FakeBroker, seconds: float, act: Callable[[], object]) -> None:
            act()

        self.noticed("amqp", "test_missing_channel_is_lost", FakeBroker, "_call_later", call_at_once)

    def test_delivered_twice(self) -> None:
        """A message that two subscriptions get."""
        deliver = FakeSubscription.deliver

        def twice(subscription: FakeSubscription, claim: Claim) -> None:
            deliver(subscription, claim)
            assert subscription.channel is not None
            for other in subscription.channel.consumers:
                if other is not subscription:
                    deliver(cast(FakeSubscription, other), evolve(claim))

        self.noticed("amqp", "test_shared", FakeSubscription, "deliver", twice)

    def test_one_has_everything(self) -> None:
        """Competing consumers that do not share."""
        one = property(lambda channel: sorted(channel.consumers, key=id)[:1])
        for form in ("amqp", "kafka"):
            self.noticed(form, "test_shared", FakeChannel, "active", one)

    def test_stop_takes_back(self) -> None:
        """A subscription that takes its deliveries back when it is stopped."""

        def leave(queue: FakeQueue, consumer: Any) -> None:
            queue.disconnect(consumer, "stopped")

        self.noticed("amqp", "test_stopped", FakeQueue, "leave", leave)

    def test_stop_keeps_the_rest(self) -> None:
        """A subscription that keeps its share of the messages when it is stopped."""

        def keep(subscription: FakeSubscription) -> Deferred[None]:
            subscription.over = True
            return succeed(None)

        for form in ("kafka", "mqtt-single"):
            self.noticed(form, "test_stopped", FakeSubscription, "stop", keep)

    def test_delivers_after_stop(self) -> None:
        """A subscription that goes on when it is stopped."""
        for test in ("test_stopped", "test_stopped_inside_received", "test_stopped_without_deliveries"):
            self.noticed("amqp", test, FakeSubscription, "stop", lambda subscription: succeed(None))
