"""What every `IBroker` promises, as a suite: ``class SomeContract(broker_contract(make)): ...``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from openhqm.errors import NotDurable
from openhqm.interfaces.legacy import IBroker, IBrokerDelivery
from openhqm.messages import Priority

PATIENCE = 25.0
Q = "q"
IN_ORDER = "q.billing._3"

Make = Callable[[TestCase], Awaitable[IBroker]]
"""A broker that is connected. Each call by the same test makes another process, on the same queues."""


class Patient(TestCase):
    """What is asked for again until it holds; the deadline is for a promise that is not kept."""

    timeout = 60

    async def until(self, holds: Callable[[], Any], words: str) -> None:
        from twisted.internet import reactor

        end = reactor.seconds() + PATIENCE  # type: ignore[attr-defined]
        while True:
            found = holds()
            if isinstance(found, Deferred):
                found = await found
            if found:
                return
            self.assertLess(reactor.seconds(), end, words)  # type: ignore[attr-defined]
            await self.pause(0.02)

    async def pause(self, seconds: float) -> None:
        from twisted.internet import reactor

        await deferLater(reactor, seconds)  # type: ignore[arg-type]

    async def patiently(self, step: Callable[[], Deferred[Any]]) -> Any:
        """Repeat what could not be made durable, as callers do."""
        from twisted.internet import reactor

        end = reactor.seconds() + PATIENCE  # type: ignore[attr-defined]
        while True:
            try:
                return await step()
            except NotDurable:
                if reactor.seconds() > end:  # type: ignore[attr-defined]
                    raise
                await self.pause(0.05)

    async def refused(self, step: Deferred[Any]) -> NotDurable:
        try:
            await step
        except NotDurable as error:
            return error
        raise self.failureException("NotDurable was not raised")


def publish(broker: IBroker, body: bytes, queue: str = Q, **more: Any) -> Deferred[None]:
    """With what a test does not care for filled in."""
    return broker.publish(queue, body, **{"attempts": 0, "priority": Priority.NORMAL, "delay": 0.0, **more})


class Contract(Patient):
    """By `broker_contract`."""

    async def make(self) -> IBroker:
        raise NotImplementedError

    async def setUp(self) -> None:  # type: ignore[override]
        self.broker = await self.make()

    async def one(self, queue: str = Q, broker: IBroker | None = None) -> IBrokerDelivery:
        (found,) = await (broker or self.broker).receive(queue, 1)
        return found

    async def bodies(self, count: int, queue: str = Q) -> list[bytes]:
        """What is lent next, acknowledged."""
        found = []
        while len(found) < count:
            for delivery in await self.broker.receive(queue, count - len(found)):
                found.append(delivery.body)
                await delivery.ack()
        return found

    async def test_interfaces(self) -> None:
        """Broker and delivery are what they say they are."""
        verifyObject(IBroker, self.broker)
        await publish(self.broker, b"1")
        verifyObject(IBrokerDelivery, await self.one())

    async def test_as_published(self) -> None:
        """What was published is lent, byte by byte, with its number of attempts; once acknowledged it is gone."""
        body = bytes(range(256)) * 1000
        await publish(self.broker, body, attempts=3)
        delivery = await self.one()
        self.assertEqual((delivery.body, delivery.attempts, delivery.returned), (body, 3, 0))
        await delivery.ack()
        await publish(self.broker, b"")
        self.assertEqual(await self.bodies(1), [b""])

    async def test_in_the_order_of_publishing(self) -> None:
        """Within one priority the oldest goes first."""
        bodies = [b"%d" % number for number in range(20)]
        for body in bodies:
            await publish(self.broker, body)
        self.assertEqual(await self.bodies(20), bodies)

    async def test_priorities(self) -> None:
        """Of what waits, the high goes before the normal and that before the low."""
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
            for number in b"12":
                await publish(self.broker, b"%s %c" % (priority.value.encode(), number), priority=priority)
        expected = [b"high 1", b"high 2", b"normal 1", b"normal 2", b"low 1", b"low 2"]
        self.assertEqual(await self.bodies(6), expected)

    async def test_who_waits(self) -> None:
        """Whoever waits is told of what is published afterwards, and gets no more than was asked for."""
        waiting = self.broker.receive(Q, 2)
        self.assertFalse(waiting.called)
        for number in range(5):
            await publish(self.broker, b"%d" % number)
        first = await waiting
        self.assertTrue(1 <= len(first) <= 2)
        await self.bodies(5 - len(first))

    async def test_many_on_loan(self) -> None:
        """One by one, as many as are there can be on loan at once."""
        for number in range(40):
            await publish(self.broker, b"%d" % number)
        loans = [await self.one() for _ in range(40)]
        self.assertEqual(len({loan.body for loan in loans}), 40)
        self.assertEqual((await self.broker.depth(Q)).in_flight, 40)

    async def test_given_back(self) -> None:
        """What is given back is lent again, before those that came after it, and is not new."""
        for number in range(4):
            await publish(self.broker, b"%d" % number)
        (first, second) = await self.lent(2)
        await first.release()
        again = await self.one()
        self.assertEqual((again.body, again.returned), (b"0", 1))
        await second.ack()
        await again.ack()
        self.assertEqual(await self.bodies(2), [b"2", b"3"])

    async def lent(self, count: int) -> Sequence[IBrokerDelivery]:
        found: list[IBrokerDelivery] = []
        while len(found) < count:
            found += await self.broker.receive(Q, count - len(found))
        return found

    async def test_settled_once(self) -> None:
        """What was acknowledged or given back cannot be again."""
        await publish(self.broker, b"1")
        delivery = await self.one()
        await delivery.release()
        await self.refused(delivery.ack())
        await (await self.one()).ack()

    async def test_never_early(self) -> None:
        """What is delayed is lent to nobody before its time, and then it is, with its number of attempts."""
        from twisted.internet import reactor

        due = {}
        for delay in (0.05, 0.3, 0.7, 1.3, 2.0, 0.12):
            body = b"%g" % delay
            due[body] = reactor.seconds() + delay  # type: ignore[attr-defined]
            await publish(self.broker, body, delay=delay, attempts=2)
        await publish(self.broker, b"now", attempts=2)
        due[b"now"] = 0.0
        while due:
            delivery = await self.one()
            self.assertGreaterEqual(reactor.seconds(), due.pop(delivery.body))  # type: ignore[attr-defined]
            self.assertEqual(delivery.attempts, 2)
            await delivery.ack()

    async def test_delayed_in_its_priority(self) -> None:
        """After its delay a message has the priority that it was published with."""
        await publish(self.broker, b"low", delay=0.6, priority=Priority.LOW)
        await publish(self.broker, b"high", delay=0.6, priority=Priority.HIGH)
        await self.pause(0.6)  # the times of both are over
        await self.until(lambda: self._ready(2), "they did not come")
        self.assertEqual(await self.bodies(2), [b"high", b"low"])

    def _ready(self, count: int) -> Deferred[bool]:
        return self.broker.depth(Q).addCallback(lambda depth: depth.ready == count)

    async def test_in_order(self) -> None:
        """In order is one at a time, the oldest, whoever asks; what is given back comes again before the others."""
        other = await self.make()
        for number in range(3):
            await publish(self.broker, b"%d" % number, IN_ORDER)
        mine = self.broker.receive(IN_ORDER, 5, in_order=True)
        (first,) = await mine
        self.assertEqual(first.body, b"0")
        waiting = [each.receive(IN_ORDER, 5, in_order=True) for each in (self.broker, other)]
        await self.pause(0.3)
        self.assertEqual([each.called for each in waiting], [False, False])
        await first.release()
        for body in (b"0", b"1", b"2"):
            await self.until(lambda: any(each.called for each in waiting), "nobody was lent anything")
            (index,) = [index for index, each in enumerate(waiting) if each.called]
            (delivery,) = await waiting[index]
            self.assertEqual(delivery.body, body)
            waiting[index] = (self.broker, other)[index].receive(IN_ORDER, 5, in_order=True)
            await delivery.ack()
        for each in waiting:
            each.addErrback(lambda failure: failure.trap(CancelledError)).cancel()

    async def test_given_up(self) -> None:
        """Who gives up waiting takes nothing away: it goes to whoever asks then, here or elsewhere."""
        other = await self.make()
        waiting = self.broker.receive(Q, 3)
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        await publish(self.broker, b"0")
        waiting.cancel()
        for number in (b"1", b"2"):
            await publish(self.broker, number)
        taken = [] if waiting.result is None or isinstance(waiting.result, type) else list(waiting.result)
        found = {delivery.body for delivery in taken}
        while len(found) < 3:
            delivery = await self.one(broker=other)
            found.add(delivery.body)
            await delivery.ack()
        self.assertEqual(found, {b"0", b"1", b"2"})

    async def test_idle(self) -> None:
        """Who has asked once, and asks no more, keeps nothing from the others."""
        other = await self.make()
        for number in range(10):
            await publish(self.broker, b"%d" % number)
        mine = await self.broker.receive(Q, 3)
        found = {delivery.body for delivery in mine}
        while len(found) < 10:
            for delivery in await other.receive(Q, 10):
                found.add(delivery.body)
                await delivery.ack()

    async def test_depth(self) -> None:
        """The depth tells what is ready, delayed and on loan."""
        for number in range(3):
            await publish(self.broker, b"%d" % number, priority=list(Priority)[number])
        await publish(self.broker, b"later", delay=1000.0)
        depth = await self.broker.depth(Q)
        self.assertEqual((depth.ready, depth.delayed, depth.in_flight, depth.oldest), (3, 1, 0, None))
        delivery = await self.one()
        await self.until(lambda: self._ready(2), "the one on loan is ready, too")
        self.assertEqual((await self.broker.depth(Q)).in_flight, 1)
        await delivery.ack()
        self.assertEqual((await self.broker.depth(Q)).in_flight, 0)
        empty = await self.broker.depth("other")
        self.assertEqual((empty.ready, empty.in_flight), (0, 0))

    async def test_stopped(self) -> None:
        """With the end of a process its loans go to the others, and whoever waits in it is told."""
        other = await self.make()
        await publish(self.broker, b"1")
        await self.one()
        waiting = self.broker.receive(Q, 1)
        await self.broker.stop()
        self.assertEqual((await self.one(broker=other)).body, b"1")
        with self.assertRaises(CancelledError):
            await waiting
        await self.refused(publish(self.broker, b"2"))


def broker_contract(make: Make) -> type[TestCase]:
    """The suite, for the brokers that ``make`` makes."""

    class Suite(Contract):
        async def make(self) -> IBroker:
            return await make(self)

    return Suite
