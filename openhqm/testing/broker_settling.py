# -*- test-case-name: tests.testing.test_fake_broker -*-
"""Settling: what was acknowledged is forgotten, and everything else is delivered again."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress

from twisted.internet.defer import Deferred, gatherResults

from openhqm.errors import NotDurable
from openhqm.interfaces import Acks, Position
from openhqm.testing.broker_bench import Inbox
from openhqm.testing.broker_case import KEY, BrokerCase, numbered


class Settling(BrokerCase):
    """What deliveries promise, whatever the product's leases are."""

    async def next_process(self) -> None:
        """Stop the client, and go on with another one."""
        await self.done(self.broker.stop())
        self.broker = await self.bench.make()

    async def test_acknowledged(self) -> None:
        """What was acknowledged is not delivered again, also not after its client has been stopped."""
        channel, inbox = await self.out(3)
        await self.ack(inbox, *inbox.deliveries)
        await self.quiet(self.lease_over)
        self.assertEqual(len(inbox.deliveries), 3)
        self.assertEqual(inbox.revoked, [])
        await self.next_process()
        self.assertEqual(await self.remaining(channel), [])

    async def test_acknowledged_together(self) -> None:
        """Acknowledgements need not wait for each other."""
        channel, inbox = await self.out(20)
        inbox.settled.extend(inbox.deliveries)
        await self.done(gatherResults([each.ack() for each in inbox.deliveries]))
        await self.next_process()
        self.assertEqual(await self.remaining(channel), [])

    async def test_acknowledged_inside_received(self) -> None:
        """A receiver may acknowledge a delivery at the moment in which it gets it."""
        channel = await self.channel()
        await self.publish(channel, numbered(10), self.partition_key)
        inbox = Inbox()
        acked: list[Deferred[None]] = []
        inbox.on_received = lambda delivery: acked.append(delivery.ack())
        self.consume(channel, 1, inbox=inbox)
        await self.received(inbox, 10)
        await self.done(gatherResults(acked))
        await self.next_process()
        self.assertEqual(await self.remaining(channel), [])

    async def test_not_acknowledged(self) -> None:
        """What is out when its client is stopped is revoked, and delivered again to another client."""
        channel, inbox = await self.out(3)
        await self.done(self.broker.stop())
        await self.until(lambda: len(inbox.revoked) == 3, "what was out was not revoked")
        await self.refused(inbox.deliveries[0].ack())
        inbox.subscription.credit(5)
        await self.done(inbox.subscription.stop())
        self.broker = await self.bench.make()
        again = self.consume(channel, 3)
        await self.received(again, 3)
        self.assertEqual(sorted(again.bodies), numbered(3))
        self.assertEqual(inbox.lost_for, [])

    async def test_each_alone(self) -> None:
        """An acknowledgement says what the traits say: this one, or all up to it; what else is out comes again."""
        channel, inbox = await self.out(5)
        first, second, third = inbox.deliveries[:3]
        acked = {Acks.EACH: [third, first], Acks.PREFIX: [third], Acks.IN_ORDER: [first, second]}[self.traits.acks]
        left = {Acks.EACH: {1, 3, 4}, Acks.PREFIX: {3, 4}, Acks.IN_ORDER: {2, 3, 4}}[self.traits.acks]
        expected = {inbox.bodies[number] for number in left}
        await self.ack(inbox, *acked)
        await self.next_process()
        again = self.consume(channel, 5)
        await self.received(again, len(left))
        await self.quiet()
        self.assertEqual(set(again.bodies), expected)
        self.assertEqual(len(again.bodies), len(left))

    async def test_room_for_others(self) -> None:
        """An acknowledgement makes room for as many deliveries as it covers."""
        channel, inbox = await self.out(3)
        await self.publish(channel, numbered(5, 3), self.partition_key)
        await self.quiet()
        self.assertEqual(len(inbox.deliveries), 3)
        covered = {Acks.EACH: [1], Acks.PREFIX: [0, 1], Acks.IN_ORDER: [0]}[self.traits.acks]
        inbox.settled.extend(inbox.deliveries[number] for number in covered)
        await self.done(inbox.deliveries[covered[-1]].ack())
        await self.received(inbox, 3 + len(covered))
        await self.quiet()
        self.assertEqual(len(inbox.deliveries), 3 + len(covered))
        self.assertLessEqual(inbox.most_out, 3)

    async def test_late_ack_of_an_earlier_one(self) -> None:
        """An earlier delivery that is acknowledged after a later one takes nothing back that was acknowledged."""
        channel, inbox = await self.out(4)
        if self.traits.acks is Acks.IN_ORDER:
            await self.ack(inbox, *inbox.deliveries[:3])
        else:
            await self.ack(inbox, inbox.deliveries[2])
            for delivery in inbox.deliveries[:2]:
                with suppress(NotDurable):  # the product may have forgotten it already
                    await self.ack(inbox, delivery)
        await self.next_process()
        self.assertEqual(await self.remaining(channel), [inbox.bodies[3]])

    async def test_positions(self) -> None:
        """Where a product acknowledges by position, each delivery has one, and in a partition they only grow."""
        channel = await self.channel()
        inbox = self.consume(channel, 30)
        for number in range(30):
            key = f"{KEY} {number % 7}" if self.traits.acks is Acks.PREFIX else None
            await self.publish(channel, [b"%d" % number], key)
        await self.received(inbox, 30)
        found: defaultdict[str, list[Position]] = defaultdict(list)
        for delivery in inbox.deliveries:
            if delivery.position is None:
                self.assertIsNot(self.traits.acks, Acks.PREFIX, "a delivery without a position")
            else:
                found[delivery.position.partition].append(delivery.position)
        for positions in found.values():
            self.assertEqual(positions, sorted(set(positions)))

    async def test_handed_back(self) -> None:
        """What a client does not want is delivered again: at once where the product requeues, else after its stop."""
        channel, inbox = await self.out(1)
        if not self.traits.requeues:
            await self.next_process()
            again = self.consume(channel, 1)
            await self.received(again, 1)
            self.assertEqual(again.bodies, [b"0"])
            return
        for number in range(3):
            inbox.settled.append(inbox.deliveries[number])
            await self.done(inbox.deliveries[number].requeue())
            await self.until(lambda number=number: len(inbox.deliveries) == number + 2, "it did not come again")  # type: ignore[misc]
        self.assertEqual(inbox.bodies, [b"0"] * 4)
        self.assertEqual(inbox.most_out, 1)
        await self.ack(inbox, inbox.deliveries[-1])
        await self.next_process()
        self.assertEqual(await self.remaining(channel), [])

    async def test_requeued_to_another(self) -> None:
        """Where the product requeues, another subscription can have what was requeued, and has it once."""
        if not self.traits.requeues:
            return
        channel, inbox = await self.out(2)
        other = await self.bench.make()
        inbox.subscription.credit(0)
        await self.quiet()
        again = self.consume(channel, 5, other)
        for delivery in inbox.deliveries:
            inbox.settled.append(delivery)
            await self.done(delivery.requeue())
        if not self.traits.competing_consumers:
            await self.done(inbox.subscription.stop())
        await self.received(again, 2)
        await self.ack(again, *again.deliveries)
        await self.quiet()
        self.assertEqual(sorted(again.bodies), numbered(2))

    async def test_redelivery_count(self) -> None:
        """Where the product counts, a delivery says how often the message was delivered before; else it says None."""
        channel, inbox = await self.out(1)
        counts = []
        for _ in range(3):
            counts.append(inbox.deliveries[0].redelivery_count)
            if self.traits.requeues:
                inbox.subscription.credit(0)
                await self.quiet()
                inbox.settled.append(inbox.deliveries[0])
                await self.done(inbox.deliveries[0].requeue())
                await self.done(inbox.subscription.stop())
            else:
                await self.next_process()
            inbox = self.consume(channel, 1)
            await self.received(inbox, 1)
        if self.traits.counts_redeliveries:
            numbers = [count for count in counts if count is not None]
            self.assertEqual((len(numbers), numbers[0], numbers), (3, 0, sorted(set(numbers))))
        else:
            self.assertEqual(counts, [None] * 3)
