# -*- test-case-name: tests.testing.test_fake_broker -*-
"""Delivering: as much as the credit allows, to one subscription, until that is stopped or the channel is gone."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from openhqm.interfaces import Acks
from openhqm.testing.broker_bench import Inbox
from openhqm.testing.broker_case import BrokerCase, numbered


class Delivering(BrokerCase):
    """What a subscription to a channel promises."""

    async def test_nothing_before_credit(self) -> None:
        """A subscription delivers nothing before it has credit, and then what came in between."""
        channel = await self.channel()
        inbox = self.consume(channel)
        await self.publish(channel, numbered(3))
        await self.quiet()
        self.assertEqual(inbox.bodies, [])
        inbox.subscription.credit(3)
        await self.received(inbox, 3)

    async def test_waits(self) -> None:
        """A subscription with credit to an empty channel delivers what is published later, by any client."""
        channel = await self.channel()
        inbox = self.consume(channel, 5)
        await self.quiet()
        await self.publish(channel, [b"1"])
        await self.received(inbox, 1)
        await self.publish(channel, [b"2"], broker=await self.bench.make())
        await self.received(inbox, 2)
        self.assertEqual(inbox.bodies, [b"1", b"2"])

    async def test_never_more_than_the_credit(self) -> None:
        """There are never more deliveries out than the credit allows, while acknowledgements make room for others."""
        channel = await self.channel()
        await self.publish(channel, numbered(12))
        inbox = self.consume(channel, 3)
        for number in range(12):
            await self.received(inbox, number + 1)
            await self.ack(inbox, inbox.deliveries[number])
        self.assertEqual(sorted(inbox.bodies, key=int), numbered(12))
        self.assertLessEqual(inbox.most_out, 3)

    async def test_credit_is_used(self) -> None:
        """As many deliveries are out at once as the credit allows, and the others wait."""
        channel = await self.channel()
        await self.publish(channel, numbered(8))
        inbox = self.consume(channel, 5)
        await self.received(inbox, 5)
        await self.quiet()
        self.assertEqual(len(inbox.deliveries), 5)

    async def test_credit_raised(self) -> None:
        """More credit lets more out; it stands for the whole, and does not add up."""
        channel = await self.channel()
        await self.publish(channel, numbered(8))
        inbox = self.consume(channel, 2)
        await self.received(inbox, 2)
        inbox.subscription.credit(5)
        inbox.subscription.credit(5)
        await self.received(inbox, 5)
        await self.quiet()
        self.assertEqual(inbox.most_out, 5)

    async def test_credit_lowered(self) -> None:
        """Less credit takes nothing back. Once the product heeds it, no more are out than it allows."""
        channel = await self.channel()
        await self.publish(channel, numbered(4))
        inbox = self.consume(channel, 4)
        await self.received(inbox, 4)
        inbox.subscription.credit(1)
        await self.quiet()
        self.assertEqual(inbox.revoked, [])
        await self.ack(inbox, *inbox.deliveries)
        await self.publish(channel, numbered(4, 4))
        for number in range(4, 8):
            await self.received(inbox, number + 1)
            await self.quiet()
            self.assertEqual(inbox.out, 1)
            await self.ack(inbox, inbox.deliveries[number])

    async def test_no_credit(self) -> None:
        """Without credit deliveries pause, and go on with the next."""
        channel = await self.channel()
        inbox = self.consume(channel, 1)
        await self.publish(channel, [b"1"])
        await self.received(inbox, 1)
        inbox.subscription.credit(0)
        await self.quiet()
        await self.ack(inbox, inbox.deliveries[0])
        await self.publish(channel, [b"2"])
        await self.quiet()
        self.assertEqual(inbox.bodies, [b"1"])
        inbox.subscription.credit(1)
        await self.received(inbox, 2)

    async def test_missing_channel_is_lost(self) -> None:
        """A channel that does not exist is told to the receiver, once, after consume has returned."""
        inbox = self.consume(self.bench.channel("missing"), 1)
        await self.until(lambda: inbox.lost_for, "the receiver was not told that the channel is missing")
        self.assertIsInstance(inbox.lost_for[0], str)
        await self._is_over(inbox)

    async def test_deleted(self) -> None:
        """When a channel is deleted, what is out is revoked, and then the receiver is told that the channel is lost."""
        self.needs("delete")
        channel = await self.channel()
        await self.publish(channel, numbered(3))
        inbox = self.consume(channel, 2)
        await self.received(inbox, 2)
        await self.bench.delete(channel)
        await self.until(lambda: inbox.lost_for, "the receiver was not told that the channel was deleted")
        self.assertEqual(inbox.revoked_when_lost, len(inbox.deliveries))
        await self.refused(inbox.deliveries[0].ack())
        await self._is_over(inbox)

    async def _is_over(self, inbox: Inbox) -> None:
        """Nothing more comes of the subscription, and nothing that is done with it fails."""
        inbox.subscription.credit(2)
        await self.quiet()
        self.assertEqual(len(inbox.lost_for), 1)
        await self.done(inbox.subscription.stop())

    async def test_made_again(self) -> None:
        """A channel that was deleted and made again has a new life: nothing of the old one, and new subscriptions."""
        self.needs("delete")
        channel = await self.channel()
        await self.publish(channel, [b"old"])
        await self.bench.delete(channel)
        await self.channel()
        await self.publish(channel, [b"new"])
        self.assertEqual(await self.remaining(channel), [b"new"])

    async def test_shared(self) -> None:
        """Competing consumers share the messages, each delivered once. Where there are none, the first has them all."""
        channel, other = await self.channel(), await self.bench.make()
        first = self.consume(channel, 1)
        await self.quiet()
        second = self.consume(channel, 1, other)
        sharing = [first, second] if self.traits.competing_consumers else [first]
        published = await self._until_each_has_one(channel, sharing)
        await self.publish(channel, numbered(20, published))

        def found() -> list[bytes]:
            return [each.message.body for inbox in sharing for each in inbox.deliveries if each not in inbox.revoked]

        async def all_there() -> bool:
            for inbox in sharing:
                await self.take(inbox)
            return len(found()) >= published + 20

        await self.until(all_there, "not every message was delivered")
        await self.quiet()
        self.assertEqual(sorted(found(), key=int), numbered(published + 20))

    async def _until_each_has_one(self, channel: str, inboxes: list[Inbox]) -> int:
        """Publish until each subscription has a delivery: a product may take a while to share. How many it took."""
        for count in range(400):
            if all(each.deliveries for each in inboxes):
                return count
            await self.publish(channel, [b"%d" % count])
            await self.bench.pass_time(0.05)
        raise self.failureException("one of two subscriptions got none of 400 messages")

    async def test_stopped(self) -> None:
        """A stopped subscription delivers nothing more. What it had can be settled, and others get the rest."""
        channel, other = await self.channel(), await self.bench.make()
        await self.publish(channel, numbered(6), self.partition_key)
        inbox = self.consume(channel, 2)
        await self.received(inbox, 2)
        await self.done(inbox.subscription.stop())
        inbox.subscription.credit(5)
        if self.traits.acks is not Acks.EACH:  # its partition, or session, is free once all that it had is acknowledged
            await self.ack(inbox, *inbox.deliveries)
        rest = self.consume(channel, 10, other)
        await self.received(rest, 4)
        if self.traits.acks is Acks.EACH:
            await self.ack(inbox, *inbox.deliveries)
        await self.quiet()
        self.assertEqual(inbox.revoked, [])
        self.assertEqual(sorted(inbox.bodies + rest.bodies), numbered(6))
        await self.ack(rest, *rest.deliveries)
        await self.done(rest.subscription.stop())
        self.assertEqual(await self.remaining(channel), [])

    async def test_stopped_inside_received(self) -> None:
        """A receiver may stop its subscription at the moment in which it gets a delivery; that one is its last."""
        channel = await self.channel()
        await self.publish(channel, numbered(3), self.partition_key)
        inbox = Inbox()
        stops: list[Deferred[None]] = []
        inbox.on_received = lambda delivery: stops.append(inbox.subscription.stop())
        self.consume(channel, 3, inbox=inbox)
        await self.received(inbox, 1)
        await self.done(stops[0])
        await self.ack(inbox, inbox.deliveries[0])
        self.assertEqual(len(await self.remaining(channel)), 2)
        self.assertEqual(len(inbox.deliveries), 1)

    async def test_stopped_without_deliveries(self) -> None:
        """A subscription that is stopped before it had anything keeps nothing from others."""
        channel = await self.channel()
        inbox = self.consume(channel, 5)
        await self.done(inbox.subscription.stop())
        await self.publish(channel, [b"1"])
        self.assertEqual(await self.remaining(channel), [b"1"])
        self.assertEqual(inbox.bodies, [])
