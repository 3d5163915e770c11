# -*- test-case-name: tests.testing.test_fake_broker -*-
"""Publishing, and the channels: what was confirmed is there, and what was not confirmed is refused within a bound."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from openhqm.errors import NotDurable
from openhqm.interfaces import DepthKind, IBroker, IBrokerDelivery, IReceiver, ISubscription, Message
from openhqm.testing.broker_case import KEY, BrokerCase, numbered

LARGE = 100 * 1024


class Publishing(BrokerCase):
    """What `IBroker.publish` promises."""

    async def outcomes(self, channel: str, *messages: Message) -> list[NotDurable | None]:
        """What becomes of them."""
        publishing = self.broker.publish(channel, messages)
        found: Sequence[NotDurable | None] = await self.done(publishing, self.bench.publish_seconds)
        return list(found)

    def assert_refused(self, outcomes: list[NotDurable | None], count: int) -> None:
        self.assertEqual([isinstance(each, NotDurable) for each in outcomes], [True] * count, outcomes)

    async def test_interfaces(self) -> None:
        """Broker, subscription and delivery provide their interfaces, and so does the receiver of the tests."""
        channel = await self.channel()
        inbox = self.consume(channel, 1)
        await self.publish(channel, [b"1"])
        (delivery,) = await self.received(inbox, 1)
        verifyObject(IBroker, self.broker)
        verifyObject(ISubscription, inbox.subscription)
        verifyObject(IBrokerDelivery, delivery)
        verifyObject(IReceiver, inbox)

    async def test_intact(self) -> None:
        """A message is delivered as it was published: every byte of the body, headers in any script, the key."""
        channel = await self.channel()
        headers = {
            "content-type": "application/json",
            "name": "Zoë ☃ 漢字 🦆",
            "empty": "",
            "quoted": "a=\"b\"; c='<&>'",
        }
        messages = [
            Message(bytes(range(256)), headers, key="a key / ä"),
            Message(b'{"a": 1}\r\n'),
            Message(b"\xff\xfe\x00", {"x": "1"}),
        ]
        self.assertEqual(await self.outcomes(channel, *messages), [None] * 3)
        found = [each.message for each in await self.received(self.consume(channel, 3), 3)]
        for message in messages:
            (same,) = [each for each in found if each.body == message.body]
            self.assertEqual((dict(same.headers), same.key), (dict(message.headers), message.key))

    async def test_large(self) -> None:
        """A body of 100 KiB, or of the largest size where that is less, is delivered intact."""
        channel = await self.channel()
        body = bytes(range(256)) * (min(LARGE, self.traits.largest_message or LARGE) // 256)
        await self.publish(channel, [body])
        (delivery,) = await self.received(self.consume(channel, 1), 1)
        self.assertEqual(delivery.message.body, body)

    async def test_empty(self) -> None:
        """An empty body is delivered as one, or refused where the product has none; it is never lost."""
        channel = await self.channel()
        (outcome,) = await self.outcomes(channel, Message(b"", {"name": "value"}))
        left = await self.remaining(channel)
        self.assertEqual(left, [b""] if outcome is None else [])

    async def test_batch(self) -> None:
        """A whole batch has an outcome for each message, and each confirmed message is delivered once."""
        channel = await self.channel()
        bodies = numbered(self.traits.largest_batch)
        self.assertEqual(await self.outcomes(channel, *map(Message, bodies)), [None] * len(bodies))
        inbox = self.consume(channel, len(bodies))
        await self.received(inbox, len(bodies))
        await self.quiet()
        self.assertEqual(sorted(inbox.bodies), sorted(bodies))

    async def test_nothing(self) -> None:
        """A batch without messages has no outcomes."""
        self.assertEqual(await self.outcomes(await self.channel()), [])

    async def test_largest(self) -> None:
        """The largest body is taken. One byte more is refused, and nothing else of its batch."""
        largest = self.traits.largest_message
        channel = await self.channel()
        if largest is None:
            await self.publish(channel, [bytes(4 * LARGE)])
            return
        self.assertEqual(await self.outcomes(channel, Message(b"x" * largest)), [None])
        outcomes = await self.outcomes(channel, Message(b"1"), Message(b"y" * (largest + 1)), Message(b"2"))
        self.assertEqual([each is None for each in outcomes], [True, False, True])
        self.assert_refused(outcomes[1:2], 1)
        self.assertEqual(await self.remaining(channel), [b"1", b"2", b"x" * largest])

    async def test_missing(self) -> None:
        """For a channel that does not exist every message is refused, and none is there when it is made."""
        channel = self.bench.channel("missing")
        self.assert_refused(await self.outcomes(channel, Message(b"1"), Message(b"2")), 2)
        self.assertEqual(await self.channel("missing"), channel)
        self.assertEqual(await self.remaining(channel), [])

    async def test_order_of_the_calls(self) -> None:
        """Messages of one channel (with native partitions: of one key) lie in the order of the calls of publish."""
        channel = await self.channel()
        bodies = numbered(20)
        publishing = [self.broker.publish(channel, [Message(body, key=self.key)]) for body in bodies]
        outcomes = await self.done(gatherResults(publishing), self.bench.publish_seconds)
        self.assertEqual(outcomes, [[None]] * len(bodies))
        inbox = self.consume(channel, 1)
        for number in range(len(bodies)):
            await self.received(inbox, number + 1)
            await self.ack(inbox, inbox.deliveries[number])
        self.assertEqual(inbox.bodies if self.bench.ordered else sorted(inbox.bodies, key=int), bodies)

    async def test_keys(self) -> None:
        """With native partitions the messages of each key stay in order in one channel, also with many keys."""
        channel = await self.channel()
        keys = [f"{KEY} {number}" for number in range(4)] if self.traits.native_partitions else [None]
        for body in numbered(5):
            for key in keys:
                await self.publish(channel, [body], key)
        inbox = self.consume(channel, 3)
        for number in range(5 * len(keys)):
            await self.received(inbox, number + 1)
            await self.ack(inbox, inbox.deliveries[number])
        for key in keys:
            found = [each.message.body for each in inbox.deliveries if each.message.key == key]
            self.assertEqual(found if self.bench.ordered else sorted(found), numbered(5), key)

    async def test_window(self) -> None:
        """A channel that keeps n messages takes n. What is published beyond is refused, or kept as well."""
        keeps = self.traits.keeps
        channel = await self.channel()
        confirmed: list[bytes] = []
        for body in numbered(50 if keeps is None else keeps + 5):
            (outcome,) = await self.outcomes(channel, Message(body, key=self.key))
            if outcome is None:
                confirmed.append(body)
        self.assertEqual(confirmed[:keeps], numbered(50 if keeps is None else keeps))
        self.assertEqual(await self.remaining(channel), sorted(confirmed))

    async def test_after_stop(self) -> None:
        """A client that was stopped refuses every message, at once."""
        channel = await self.channel()
        await self.done(self.broker.stop())
        self.assert_refused(await self.outcomes(channel, Message(b"1"), Message(b"2")), 2)

    async def test_stopped_before_the_outcome(self) -> None:
        """A publish that waits when its client is stopped has outcomes, and what it says was confirmed is there."""
        channel = await self.channel()
        publishing = self.broker.publish(channel, [Message(b"1"), Message(b"2")])
        await self.done(self.broker.stop())
        outcomes = await self.done(publishing, self.bench.publish_seconds)
        self.assertEqual(len(outcomes), 2)
        confirmed = {body for body, outcome in zip((b"1", b"2"), outcomes, strict=True) if outcome is None}
        self.broker = await self.bench.make()
        self.assertLessEqual(confirmed, set(await self.remaining(channel)))


class Channels(BrokerCase):
    """What a broker says of channels, and does about them."""

    async def test_ensure(self) -> None:
        """A missing channel is made where the product makes any, else that is refused; one that is there stays."""
        channel = self.bench.channel("requests")
        if self.traits.makes_channels:
            await self.done(self.broker.ensure(channel))
        else:
            await self.refused(self.broker.ensure(channel))
            self.assertFalse(await self.done(self.broker.exists(channel)))
            await self.bench.provide(channel)
        await self.publish(channel, [b"1"])
        await self.done(self.broker.ensure(channel))
        await self.done((await self.bench.make()).ensure(channel))
        self.assertEqual(await self.remaining(channel), [b"1"])

    async def test_exists(self) -> None:
        """Whether a channel exists is told, to every client, and also that it was deleted."""
        channel = self.bench.channel("requests")
        self.assertIs(await self.done(self.broker.exists(channel)), False)
        await self.channel("requests")
        other = await self.bench.make()
        for broker in (self.broker, other):
            await self.until(lambda broker=broker: broker.exists(channel), "the channel does not exist")  # type: ignore[misc]
        self.needs("delete")
        await self.bench.delete(channel)

        async def missing() -> bool:
            return not await other.exists(channel)

        await self.until(missing, "the channel that was deleted exists")

    async def depth(self, channel: str) -> int | None:
        """What the broker tells of the depth."""
        return await self.done(self.broker.depth(channel))

    async def test_depth(self) -> None:
        """The depth counts what waits and is not out; approximately, where the product says so, or not at all."""
        channel, kind = await self.channel(), self.traits.depth
        inbox = self.consume(channel, 2)
        await self.publish(channel, numbered(5), self.partition_key)
        await self.received(inbox, 2)
        if kind is DepthKind.NONE:
            self.assertIsNone(await self.depth(channel))
            return

        async def is_exactly(count: int) -> bool:
            return await self.depth(channel) == count

        async def is_more() -> bool:
            return (await self.depth(channel) or 0) > 0

        if kind is DepthKind.EXACT:
            await self.until(lambda: is_exactly(3), "the depth is not 3")
        else:
            await self.until(is_more, "the depth is not more than 0")
        inbox.subscription.credit(10)
        await self.received(inbox, 5)
        await self.ack(inbox, *inbox.deliveries)
        await self.until(lambda: is_exactly(0), "the depth of an empty channel is not 0")

    async def test_depth_of_a_missing_channel(self) -> None:
        """A channel that does not exist has no depth."""
        self.assertIsNone(await self.depth(self.bench.channel("missing")))

    async def test_apart(self) -> None:
        """Each channel has its own messages, and each subscription of a client its own credit."""
        first, second = await self.channel("first"), await self.channel("second")
        await self.publish(first, numbered(5), self.partition_key)
        await self.publish(second, numbered(5, 5), self.partition_key)
        inboxes = [self.consume(first, 2), self.consume(second, 3)]
        await self.received(inboxes[0], 2)
        await self.received(inboxes[1], 3)
        await self.quiet()
        self.assertEqual([len(each.deliveries) for each in inboxes], [2, 3])
        for inbox, count in zip(inboxes, (5, 5), strict=True):
            for number in range(count):
                await self.received(inbox, number + 1)
                await self.ack(inbox, inbox.deliveries[number])
        self.assertEqual([sorted(each.bodies) for each in inboxes], [numbered(5), numbered(5, 5)])
