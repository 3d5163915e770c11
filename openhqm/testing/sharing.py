# -*- test-case-name: tests.queue.test_contracts -*-
"""Sharing: the requests of tenants wait beside each other, and the shares choose whose goes next."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError

from openhqm.interfaces import IDelivery
from openhqm.policy.fair_shares import FairShares, Share
from openhqm.policy.queue_names import share_of
from openhqm.testing.bench import LEASE, REQUESTS, Base


class Sharing(Base):
    def shares(self, slots: int = 10, **reserved: float) -> FairShares:
        """Equal shares of some slots, some of which are reserved."""
        names = (None, "acme", "globex")
        return FairShares({name: Share(1, reserved.get(name or "", 0.0)) for name in names}, slots)

    async def receive_shared(self, shares: FairShares, most: int = 1) -> Sequence[IDelivery]:
        found: Sequence[IDelivery] = await self.do(self.bench.queue.receive(REQUESTS, most, shares=shares))
        return found

    async def test_all_are_delivered(self) -> None:
        """Every request is delivered once, of whichever tenant, and one without a share, too."""
        accepted = set()
        for share in ("acme", "globex", None, "acme"):
            accepted.add((await self.accept(tenant=share, share=share)).correlation_id)
        shares = self.shares()
        found: list[str] = []
        while len(found) < 4:
            found += [each.request.correlation_id for each in await self.receive_shared(shares, 3)]
        self.assertEqual((len(found), set(found)), (4, accepted))

    async def test_one_behind_many(self) -> None:
        """One request goes before those of another tenant that have waited longer, where the traits say so."""
        for _ in range(12):
            await self.accept(tenant="acme", share="acme")
        await self.accept(tenant="globex", share="globex")
        shares = self.shares()
        found = [(await self.receive_shared(shares))[0].request.submission.share for _ in range(3)]
        if self.bench.queue.traits.tells_shares:
            self.assertIn("globex", found)
        else:  # it goes before those that were prefetched with it
            while "globex" not in found and len(found) < 13:
                found += [each.request.submission.share for each in await self.receive_shared(shares)]
            self.assertIn("globex", found)

    async def test_together(self) -> None:
        """What is asked for together is divided, and one that has less leaves the rest to the others."""
        for share, count in (("acme", 8), ("globex", 2)):
            for _ in range(count):
                await self.accept(tenant=share, share=share)
        if not self.bench.queue.traits.tells_shares:
            return
        found = [each.request.submission.share for each in await self.receive_shared(self.shares(), 6)]
        self.assertEqual((len(found), found.count("globex")), (6, 2))

    async def test_woken(self) -> None:
        """A receiver that waits gets the next request of any of them; and what is released, or due for its retry."""
        shares = self.shares()
        waiting = self.bench.queue.receive(REQUESTS, 5, shares=shares)
        await self.bench.pass_time(1)
        self.assertNoResult(waiting)
        accepted = await self.accept(tenant="acme", share="acme")
        (delivery,) = await self.do(waiting)
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
        waiting = self.bench.queue.receive(REQUESTS, 5, shares=shares)
        await self.do(delivery.release())
        (delivery,) = await self.do(waiting)
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted.correlation_id, 1))
        waiting = self.bench.queue.receive(REQUESTS, 5, shares=shares)
        await self.do(delivery.retry(0.5, "no luck"))
        await self.bench.pass_time(1)
        (delivery,) = await self.do(waiting)
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted.correlation_id, 2))

    async def test_cancelled(self) -> None:
        """A receiver that is cancelled loses none of them."""
        shares = self.shares()
        waiting = self.bench.queue.receive(REQUESTS, 5, shares=shares)
        await self.bench.pass_time(1)
        waiting.cancel()
        await self.refused(waiting, CancelledError)
        accepted = await self.accept(tenant="acme", share="acme")
        (delivery,) = await self.receive_shared(shares)
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted.correlation_id, 1))

    async def test_reserved(self) -> None:
        """A slot that is reserved stays free for the one that it is for; one that is freed goes on at once."""
        for _ in range(6):
            await self.accept(tenant="acme", share="acme")
        shares = self.shares(3, globex=0.34)
        first: list[IDelivery] = []
        while len(first) < 2:
            for each in await self.receive_shared(shares, 3 - len(first)):
                first.append(each)
                shares.taken("acme")
        waiting = self.bench.queue.receive(REQUESTS, 1, shares=shares)
        await self.bench.pass_time(1)
        self.assertNoResult(waiting)
        await self.do(first[0].settle(self.reply(first[0])))
        shares.freed("acme")
        (third,) = await self.do(waiting)
        shares.taken("acme")
        self.assertEqual(third.request.submission.share, "acme")
        waiting = self.bench.queue.receive(REQUESTS, 1, shares=shares)
        accepted = await self.accept(tenant="globex", share="globex")
        if not self.bench.queue.traits.tells_shares:
            for each in (first[1], third):  # what waits in the broker before it has to come first
                await self.do(each.settle(self.reply(each)))
                shares.freed("acme")
            await self.do(waiting)
            return
        (reserved,) = await self.do(waiting)
        self.assertEqual(reserved.request.correlation_id, accepted.correlation_id)

    async def test_a_new_name(self) -> None:
        """A tenant whose requests wait by themselves, and that has no share here, gets one while a receiver waits."""
        shares = self.shares()
        accepted = await self.accept(tenant="late", share="late")
        waiting = self.bench.queue.receive(REQUESTS, 5, shares=shares)
        await self.bench.pass_time(0.01)
        shares.add("late")
        (delivery,) = await self.do(waiting)
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)

    async def test_counted(self) -> None:
        """How much waits for each is known of its queue, where the traits say so, and stays so after a crash."""
        for share, count in (("acme", 3), (None, 1)):
            for _ in range(count):
                await self.accept(tenant=share, share=share)
        for _ in range(2):
            depths = [(await self.depth(share_of(REQUESTS, name))).ready for name in ("acme", None)]
            expected = [3, 1] if self.bench.queue.traits.tells_shares else [depths[0], 4]
            self.assertEqual(depths, expected)
            if not (self.bench.queue.traits.durable and self.bench.queue.traits.tells_shares):
                return
            await self.do(self.bench.crash())
            self.assertIn(share_of(REQUESTS, "acme"), await self.do(self.bench.queue.queues()))

    async def test_delivered_again(self) -> None:
        """What was delivered when the process died is delivered again, with its attempt counted."""
        accepted = await self.accept(tenant="acme", share="acme")
        await self.receive_shared(self.shares())
        if not self.bench.queue.traits.durable:
            return
        await self.do(self.bench.crash())
        await self.bench.pass_time(LEASE + 1)
        (delivery,) = await self.receive_shared(self.shares())
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted.correlation_id, 2))
