# -*- test-case-name: tests.testing.test_fake_broker -*-
"""Leases: how long a delivery stays out, where it is not as long as its connection."""

from __future__ import annotations

from contextlib import suppress

from twisted.trial.unittest import SkipTest

from openhqm.errors import NotDurable
from openhqm.testing.broker_case import BrokerCase


class Leasing(BrokerCase):
    """How long a delivery stays out: as its lease, or as its connection."""

    async def test_unattended(self) -> None:
        """A lease that is not extended ends: the delivery is revoked and comes again. Without leases it stays out."""
        channel, inbox = await self.out(1)
        if self.traits.lease_seconds is None:
            await self.quiet(1.0)
            self.assertEqual((len(inbox.deliveries), inbox.revoked), (1, []))
            await self.ack(inbox, inbox.deliveries[0])
            return
        inbox.subscription.credit(0)
        other = self.consume(channel, 5, await self.bench.make())
        await self.received(other, 1)
        await self.until(lambda: inbox.revoked, "the delivery was not revoked")
        self.assertEqual((inbox.bodies, other.bodies), ([b"0"], [b"0"]))
        await self.refused(inbox.deliveries[0].ack())
        await self.ack(other, other.deliveries[0])
        await self.done(other.subscription.stop())
        await self.done(inbox.subscription.stop())
        self.assertEqual(await self.remaining(channel), [])

    async def test_extended(self) -> None:
        """Where there are leases, one that is extended in time does not end, and the delivery can be acknowledged."""
        lease = self.traits.lease_seconds
        channel, inbox = await self.out(1)
        if lease is None:
            return
        other = self.consume(channel, 5, await self.bench.make())
        for _ in range(5):
            await self.bench.pass_time(lease / 2)
            await self.done(inbox.deliveries[0].extend(lease))
        await self.ack(inbox, inbox.deliveries[0])
        await self.quiet(self.lease_over)
        self.assertEqual((inbox.bodies, inbox.revoked, other.bodies), ([b"0"], [], []))

    async def test_extended_further(self) -> None:
        """Where there are leases, an extension counts from now, and may end the lease sooner."""
        lease = self.traits.lease_seconds
        _, inbox = await self.out(1)
        if lease is None:
            return
        await self.done(inbox.deliveries[0].extend(lease / 2))
        await self.bench.pass_time(lease * 0.8)
        await self.until(lambda: inbox.revoked, "the shorter lease did not end", 0.1)
        await self.refused(inbox.deliveries[0].extend(lease))

    async def test_longest_lease(self) -> None:
        """Where leases have a longest time, no extension keeps a delivery beyond it."""
        lease, longest = self.traits.lease_seconds, self.traits.longest_lease_seconds
        _, inbox = await self.out(1)
        if lease is None or longest is None:
            return
        if longest > self.bench.longest_wait:
            raise SkipTest(
                f"the longest lease, {longest} s, is more than the {self.bench.longest_wait} s of this bench"
            )
        waited = 0.0
        while not inbox.revoked:
            self.assertLess(waited, longest + self.lease_over + self.bench.patience, "the lease went on")
            with suppress(NotDurable):
                await self.done(inbox.deliveries[0].extend(lease))
            await self.bench.pass_time(lease / 2)
            waited += lease / 2
        self.assertGreaterEqual(waited, longest - lease)
        await self.refused(inbox.deliveries[0].ack())

    async def test_each_its_own(self) -> None:
        """Where there are leases, each delivery has one of its own."""
        lease = self.traits.lease_seconds
        _, inbox = await self.out(3)
        if lease is None:
            return
        inbox.subscription.credit(0)
        first, second, third = inbox.deliveries
        for _ in range(4):
            await self.done(second.extend(lease))
            await self.bench.pass_time(lease / 2)
        self.assertEqual(set(inbox.revoked), {first, third})
        await self.ack(inbox, second)
