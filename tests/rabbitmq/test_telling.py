"""What is told to the process with the books goes into a queue that it alone makes, so that it can be missed."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

from openhqm.messages import Priority
from openhqm.rabbitmq.broker import RabbitMQBroker
from tests.brokered.broker_contract import Q, publish
from tests.brokers import shared_rabbitmq
from tests.rabbitmq.test_rabbitmq import Real, new_broker

STEPS = "answers"


class TellingTests(Real):
    """A worker that tells, and a process with books"""

    async def setUp(self) -> None:  # type: ignore[override]
        self.lost: list[tuple[str | None, Priority | None]] = []
        self.found: Deferred[bool] = succeed(True)
        self.worker = new_broker(self, shared_rabbitmq().url, steps=STEPS)
        await self.worker.when_probed()

    async def books(self) -> RabbitMQBroker:
        """A process that has them, and does not follow yet."""
        broker = new_broker(self, shared_rabbitmq().url, steps=STEPS, on_lost=self.note)
        await broker.when_probed()
        self.lost.clear()  # it is the first one, and finds nothing
        return broker

    def note(self, queue: str | None, priority: Priority | None) -> Deferred[bool]:
        self.lost.append((queue, priority))
        return self.found

    def tell(self, body: bytes) -> Deferred[None]:
        return publish(self.worker, body, STEPS)

    async def is_heard(self, follower: RabbitMQBroker, body: bytes) -> None:
        """What is told reaches whoever follows, if need be when it is told again."""
        waiting = follower.receive(STEPS, 1)
        await self.patiently(lambda: self.tell(body))
        (delivery,) = await waiting
        self.assertEqual(delivery.body, body)
        await delivery.ack()

    async def is_refused(self) -> None:
        self.assertIn("nobody follows", str(await self.refused(self.tell(b"0"))))

    def is_there(self) -> bool:
        import pika

        try:
            self.blocking().queue_declare(self.prefixed(STEPS), passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
        return True

    async def test_nobody_follows(self) -> None:
        """Until somebody follows nothing can be told. The worker does not make the queue, nor lose its connection."""
        for _ in range(3):
            await self.is_refused()
        follower = await self.books()
        await self.is_refused()
        self.assertFalse(self.is_there())
        self.assertIsNone(self.worker.unavailable_reason)
        await publish(self.worker, b"1")  # what is no step goes its way
        await self.is_heard(follower, b"2")

    async def test_deleted(self) -> None:
        """Deleted under whoever follows, it is missed before anything can be told again."""
        follower = await self.books()
        await self.is_heard(follower, b"1")
        waiting = follower.receive(STEPS, 1)
        self.lost.clear()
        self.found = Deferred()
        self.blocking().queue_delete(self.prefixed(STEPS))
        await self.is_refused()
        await self.until(lambda: self.lost, "nobody misses it")
        await self.is_refused()
        self.found.callback(True)
        await self.patiently(lambda: self.tell(b"2"))
        (delivery,) = await waiting
        self.assertEqual((delivery.body, self.lost), (b"2", [(STEPS, Priority.NORMAL)]))

    async def test_deleted_while_nobody_follows(self) -> None:
        """The same where it is deleted while whoever followed is down: the next one misses it."""
        follower = await self.books()
        await self.is_heard(follower, b"1")
        await follower.stop()
        await self.tell(b"with an ending")
        self.blocking().queue_delete(self.prefixed(STEPS))
        await self.is_refused()
        follower = await self.books()
        await self.is_heard(follower, b"2")
        self.assertIn((STEPS, Priority.NORMAL), self.lost)

    async def test_killed_before_it_was_bound(self) -> None:
        """A queue that is there, and that nothing leads to, is no dead end: the next start mends it."""
        follower = await self.books()
        await self.is_heard(follower, b"1")
        await follower.stop()
        self.blocking().queue_unbind(self.prefixed(STEPS), self.prefixed("accepted"), self.prefixed(STEPS))
        await self.is_refused()
        follower = await self.books()
        await self.is_heard(follower, b"2")
        self.assertEqual(self.lost, [])

    async def test_exchange_deleted(self) -> None:
        """Somebody deletes the exchange: whoever keeps the books makes it anew, and is told again."""
        follower = await self.books()
        await self.is_heard(follower, b"1")
        self.blocking().exchange_delete(self.prefixed("accepted"))
        await self.refused(self.tell(b"2"))
        await self.until(lambda: self.worker.unavailable_reason is None, "the worker does not connect again")
        await self.is_refused()
        await self.patiently(lambda: publish(follower, b"3", Q))
        await self.is_heard(follower, b"4")
