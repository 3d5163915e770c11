# -*- test-case-name: tests.testing.test_fake_broker -*-
"""The usual steps of a test of a broker, and how it waits for what the broker does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from inspect import isawaitable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from openhqm.errors import NotDurable
from openhqm.interfaces import Acks, BrokerTraits, IBroker, IBrokerDelivery, Message
from openhqm.testing.broker_bench import BrokerBench, Inbox

T = TypeVar("T")
KEY = "a key"
LAST = b"the last"
STEP_SECONDS = 0.02


def numbered(count: int, first: int = 0) -> list[bytes]:
    """Bodies that differ."""
    return [b"%d" % number for number in range(first, first + count)]


class BrokerCase(TestCase):
    """The bench of one test, a client and the usual steps. What is waited for has a deadline."""

    timeout = 300
    bench: BrokerBench
    broker: IBroker

    def make_bench(self) -> BrokerBench | Awaitable[BrokerBench]:
        """By `broker_contract`."""
        raise SkipTest("made into a suite by broker_contract")

    async def setUp(self) -> None:  # type: ignore[override]
        made = self.make_bench()
        self.bench = await made if isawaitable(made) else made  # type: ignore[assignment]
        self.addCleanup(self._close)
        self.broker = await self.bench.make()

    async def _close(self) -> None:
        await self.bench.close()

    @property
    def traits(self) -> BrokerTraits:
        return self.broker.traits

    def needs(self, method: str) -> None:
        """Skip the test, with the reason, where the bench cannot do this."""
        if method in self.bench.cannot:
            raise SkipTest(f"{method}: {self.bench.cannot[method]}")

    # Waiting

    async def until(self, holds: Callable[[], Any], missing: str, seconds: float | None = None) -> None:
        """Ask again until it holds; it fails after ``seconds``, or when the patience of the bench is over."""
        left = self.bench.patience if seconds is None else seconds
        while True:
            found = holds()
            if await found if isawaitable(found) else found:
                return
            self.assertGreater(left, 0, missing)
            await self.bench.pass_time(STEP_SECONDS)
            left -= STEP_SECONDS

    async def done(self, waiting: Deferred[T], seconds: float | None = None) -> T:
        """What it fires with, before the deadline."""
        found: list[Any] = []
        waiting.addBoth(found.append)
        await self.until(lambda: found, "the broker did not answer", seconds)
        if isinstance(found[0], Failure):
            found[0].raiseException()
        result: T = found[0]
        return result

    async def refused(self, waiting: Deferred[Any]) -> NotDurable:
        """The `NotDurable` that it fails with."""
        try:
            await self.done(waiting, self.bench.publish_seconds)
        except NotDurable as error:
            return error
        raise self.failureException("it did not fail with NotDurable")

    async def quiet(self, seconds: float = 0.0) -> None:
        """Watch for a while that nothing happens."""
        await self.bench.pass_time(max(self.bench.quiet, seconds))

    @property
    def lease_over(self) -> float:
        """After how many seconds everything that was not acknowledged has been delivered again."""
        return 1.25 * (self.traits.lease_seconds or 0.0)

    # The usual steps

    async def channel(self, name: str = "requests") -> str:
        """A channel that exists."""
        channel = self.bench.channel(name)
        if self.traits.makes_channels:
            await self.done(self.broker.ensure(channel))
        else:
            await self.bench.provide(channel)
        return channel

    async def publish(
        self, channel: str, bodies: Sequence[bytes], key: str | None = None, broker: IBroker | None = None
    ) -> None:
        """Publish in batches that the product likes; every message has to be confirmed."""
        size = self.traits.largest_batch
        for start in range(0, len(bodies), size):
            messages = [Message(body, key=key) for body in bodies[start : start + size]]
            publishing = (broker or self.broker).publish(channel, messages)
            self.assertEqual(await self.done(publishing, self.bench.publish_seconds), [None] * len(messages))

    @property
    def key(self) -> str | None:
        """The key of messages that have to stay in order, where the product asks for one."""
        return KEY if self.traits.native_partitions else None

    @property
    def partition_key(self) -> str | None:
        """The key of messages that have to lie in one partition, where the product acknowledges by partition."""
        return KEY if self.traits.acks is Acks.PREFIX else None

    def consume(
        self, channel: str, credit: int = 0, broker: IBroker | None = None, inbox: Inbox | None = None
    ) -> Inbox:
        """Subscribe."""
        inbox = inbox or Inbox()
        inbox.subscription = (broker or self.broker).consume(channel, inbox)
        self.assertEqual((inbox.deliveries, inbox.lost_for), ([], []), "the receiver was called inside consume")
        if credit:
            inbox.subscription.credit(credit)
        return inbox

    async def received(self, inbox: Inbox, count: int) -> list[IBrokerDelivery]:
        """Wait until so many have been delivered. It may take a lease: another process may have had them."""
        missing = f"of {count} deliveries there came {len(inbox.deliveries)}"
        await self.until(lambda: len(inbox.deliveries) >= count, missing, self.bench.patience + self.lease_over)
        return inbox.deliveries

    async def out(self, count: int) -> tuple[str, Inbox]:
        """A channel (with `Acks.PREFIX` one partition of it) with ``count`` messages, and all of them out."""
        channel = await self.channel()
        await self.publish(channel, numbered(count), self.partition_key)
        inbox = self.consume(channel, count)
        await self.received(inbox, count)
        return channel, inbox

    async def ack(self, inbox: Inbox, *deliveries: IBrokerDelivery) -> None:
        """Acknowledge, one after the other."""
        for delivery in deliveries:
            inbox.settled.append(delivery)
            await self.done(delivery.ack())

    async def _is_confirmed(self, channel: str, body: bytes, broker: IBroker | None) -> bool:
        publishing = (broker or self.broker).publish(channel, [Message(body, key=self.key)])
        (outcome,) = await self.done(publishing, self.bench.publish_seconds)
        return outcome is None

    async def remaining(self, channel: str, broker: IBroker | None = None) -> list[bytes]:
        """Take out of a channel what comes before a last message, and what comes within a lease after it."""
        inbox = self.consume(channel, 100, broker)
        # One that has just lost its connection may not know it yet, and says so of the first message.
        await self.until(lambda: self._is_confirmed(channel, LAST, broker), "the last message was not confirmed")
        await self.until(lambda: self._has_last(inbox), "the last message did not come", self.bench.patience)
        await self.quiet(self.lease_over)
        await self.take(inbox)
        await self.done(inbox.subscription.stop())
        return sorted({*inbox.bodies} - {LAST})

    async def _has_last(self, inbox: Inbox) -> bool:
        await self.take(inbox)
        return LAST in inbox.bodies

    async def take(self, inbox: Inbox) -> None:
        """Acknowledge what has come."""
        for delivery in inbox.deliveries:
            if delivery not in inbox.settled and delivery not in inbox.revoked:
                with suppress(NotDurable):  # it was revoked at this moment, and comes again
                    await self.ack(inbox, delivery)
