"""RabbitMQ beyond the contract: what others do to its queues, and what happens to servers. With real ones.

Where ``TEST_RABBITMQ4`` is set all of it is run on RabbitMQ 4, too; see `tests.rabbitmq.test_contract`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pika
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from openhqm.interfaces import ChannelMissing, IBrokerDelivery, Message
from openhqm.rabbitmq.broker import RabbitMQBroker
from openhqm.testing.broker_bench import Inbox
from openhqm.testing.broker_case import BrokerCase, numbered
from tests.rabbitmq.bench import RabbitMQBench, bench_on
from tests.rabbitmq.test_contract import ROOT_OF_4


class Real(BrokerCase):
    """On the server that all tests share."""

    root: str | None = None
    seconds = 10.0
    bench: RabbitMQBench
    broker: Any

    def make_bench(self) -> RabbitMQBench:
        return bench_on(self.root, self.seconds)(self)

    async def outcome(self, channel: str, body: bytes = b"1", broker: RabbitMQBroker | None = None) -> Any:
        """What becomes of one message."""
        (outcome,) = await self.done((broker or self.broker).publish(channel, [Message(body)]))
        return outcome

    async def published(self, channel: str, body: bytes) -> None:
        """Publish it until it is confirmed."""

        async def confirmed() -> bool:
            return await self.outcome(channel, body) is None

        await self.until(confirmed, "it was never confirmed")

    async def bodies(self, channel: str, wanted: set[bytes]) -> Inbox:
        """Consume until all of these have come."""
        inbox = self.consume(channel, 1000)
        await self.until(lambda: wanted <= set(inbox.bodies), "messages are missing")
        return inbox


class MeddlingTests(Real):
    """What other programs do to queues"""

    async def test_deleted_under_the_publisher(self) -> None:
        """The channel of a queue that was deleted is missing, for each message; made again, it is there."""
        channel = await self.channel()
        await self.publish(channel, [b"1"])
        await self.bench.delete(channel)
        for outcome in await self.done(self.broker.publish(channel, [Message(b"2"), Message(b"3")])):
            self.assertIsInstance(outcome, ChannelMissing)
            self.assertEqual(outcome.channel, channel)
        await self.done(self.broker.ensure(channel))
        await self.publish(channel, [b"4"])
        self.assertEqual(await self.remaining(channel), [b"4"])

    async def test_made_again_at_once(self) -> None:
        """Consumers are told that a queue was deleted, however soon a publisher makes it again."""
        channel = await self.channel()
        for _ in range(5):
            inboxes = [self.consume(channel, 1), self.consume(channel, 1, await self.bench.make())]
            await self.quiet()
            await self.bench.delete(channel)
            self.assertIsInstance(await self.outcome(channel), ChannelMissing)
            await self.done(self.broker.ensure(channel))
            for inbox in inboxes:
                await self.until(lambda inbox=inbox: inbox.lost_for, "a consumer was not told")  # type: ignore[misc]

    async def test_of_others(self) -> None:
        """Whatever another program has put into the headers of a message, it is delivered, and so is the next."""
        channel = await self.channel()
        headers = {
            "text": "ä",
            "number": 5,
            "money": Decimal("1.10"),
            "time": datetime.now(UTC),
            "table": {"a": [1, {"b": None}]},
            "bytes": b"\xff\xfe",
            "nothing": None,
            "openhqm-key": 7,
        }
        odd = pika.BasicProperties(headers=headers, content_type="text/plain", message_id="m", reply_to="r", priority=3)
        self.bench.as_operator(lambda operator: operator.basic_publish("", channel, b"odd", odd))
        self.bench.as_operator(lambda operator: operator.basic_publish("", channel, b"bare"))
        await self.publish(channel, [b"ours"])
        inbox = self.consume(channel, 5)
        first, second, third = await self.received(inbox, 3)
        self.assertEqual(inbox.bodies, [b"odd", b"bare", b"ours"])
        taken = {"text": "ä", "number": "5", "openhqm-reply-channel": "r"}
        self.assertEqual((first.message.headers, first.message.key), (taken, "7"))
        self.assertEqual((second.message.headers, third.message.headers), ({}, {}))
        await self.ack(inbox, first, second, third)

    async def test_classic_queue(self) -> None:
        """A classic queue of another program is consumed from; of a redelivery it is known that it is one."""
        channel = self.bench.channel("classic")
        self.bench.as_operator(lambda operator: operator.queue_declare(channel, durable=True))
        await self.publish(channel, [b"1"])
        inbox = self.consume(channel, 1)
        (first,) = await self.received(inbox, 1)
        self.assertEqual(first.redelivery_count, 0)
        inbox.settled.append(first)
        await self.done(first.requeue())
        await self.received(inbox, 2)
        self.assertEqual(inbox.deliveries[1].redelivery_count, 1)
        await self.ack(inbox, inbox.deliveries[1])

    async def test_other_arguments(self) -> None:
        """A queue of that name that is another one is refused, with its name, and left as it is."""
        channel = self.bench.channel("classic")
        self.bench.as_operator(lambda operator: operator.queue_declare(channel, durable=True))
        error = await self.refused(self.broker.ensure(channel))
        self.assertIn(channel, str(error))
        self.assertIn("PRECONDITION_FAILED", str(error))
        self.assertIsNone(self.broker.unavailable_reason)
        self.assertIs(await self.done(self.broker.exists(channel)), True)

    async def test_made_by_many(self) -> None:
        """Many clients may make the same queues at the same time."""
        brokers = [self.broker, *[await self.bench.make() for _ in range(3)]]
        channels = [self.bench.channel(f"q{number}") for number in range(5)]
        await self.done(gatherResults([broker.ensure(channel) for channel in channels for broker in brokers]))
        for channel in channels:
            await self.publish(channel, [b"1"])
            self.assertEqual(await self.remaining(channel), [b"1"])

    async def test_full(self) -> None:
        """What a policy has no room for is refused."""
        channel = await self.channel()
        await self.publish(channel, [b"1"])
        server = self.bench.server
        pattern = "^" + channel.replace(".", r"\.") + "$"
        server.control("set_policy", "full", pattern, '{"max-length": 1, "overflow": "reject-publish"}')
        self.addCleanup(server.control, "clear_policy", "full")

        async def is_full() -> bool:
            return "full" in str(await self.outcome(channel))

        await self.until(is_full, "it takes everything")

    async def test_channel_closed(self) -> None:
        """When RabbitMQ closes the AMQP channel, what was out of it comes again, and nothing else is disturbed."""
        first, second = await self.channel("first"), await self.channel("second")
        await self.publish(first, [b"1"])
        await self.publish(second, [b"2"])
        inbox, neighbour = self.consume(first, 1), self.consume(second, 1)
        delivery: Any
        (delivery,) = await self.received(inbox, 1)
        await self.received(neighbour, 1)
        # A tag that was never given out is an error, for which the server closes the channel.
        delivery._channel.basic_ack(4711)
        await self.until(lambda: inbox.revoked, "the delivery was not revoked")
        await self.refused(delivery.ack())
        await self.received(inbox, 2)
        self.assertEqual((inbox.bodies, inbox.deliveries[1].redelivery_count), ([b"1", b"1"], 1))
        self.assertEqual((inbox.lost_for, neighbour.revoked), ([], []))
        await self.ack(neighbour, *neighbour.deliveries)

    async def test_order(self) -> None:
        """Messages come in the order of publishing, also over several consumers; what is requeued comes before them."""
        channel = await self.channel()
        await self.publish(channel, numbered(10))
        inbox = self.consume(channel, 2)
        await self.received(inbox, 2)
        inbox.subscription.credit(6)
        await self.received(inbox, 6)
        for delivery in inbox.deliveries[1:4]:
            inbox.settled.append(delivery)
            await self.done(delivery.requeue())
            await self.received(inbox, len(inbox.settled) + 6)
        for number in range(4, 9):
            await self.ack(inbox, inbox.deliveries[number])
        await self.received(inbox, 13)
        self.assertEqual([int(body) for body in inbox.bodies], [0, 1, 2, 3, 4, 5, 1, 2, 3, 6, 7, 8, 9][:13])

    async def test_paused(self) -> None:
        """A subscription that pauses while messages come gets each of them, once."""
        channel = await self.channel()
        inbox = self.consume(channel, 50)
        for number in range(6):
            inbox.subscription.credit(0 if number % 2 else 50)
            for body in numbered(50, 50 * number):
                await self.publish(channel, [body])
                await self.ack(inbox, *[each for each in inbox.deliveries if each not in inbox.settled])
            await self.quiet()
        inbox.subscription.credit(300)
        await self.received(inbox, 300)
        await self.quiet()
        self.assertEqual(sorted(map(int, inbox.bodies)), list(range(300)))

    async def test_many(self) -> None:
        """Thousands of publishes, many at a time, are all there, each once."""
        channel = await self.channel()
        total, together = 5000, 64
        numbers = iter(range(total))

        async def some() -> None:
            for number in numbers:
                await self.publish(channel, [b"%d" % number])

        await gatherResults([Deferred.fromCoroutine(some()) for _ in range(together)])
        found: list[int] = []
        inbox = Inbox()

        def received(delivery: IBrokerDelivery) -> None:
            found.append(int(delivery.message.body))
            delivery.ack()

        inbox.received = received  # type: ignore[method-assign]
        self.consume(channel, 1000, inbox=inbox)
        await self.until(lambda: len(found) >= total, "messages are missing")
        self.assertEqual(found, list(range(total)))


class FaultTests(Real):
    """What happens to servers"""

    seconds = 1.5

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.rabbit = self.bench.server
        self.addCleanup(self.mend)

    def mend(self) -> None:
        """Whatever was done to it: the next test finds it in order."""
        if self.rabbit.process is None or self.rabbit.process.poll() is not None:
            self.rabbit.start()

    def freeze(self) -> None:
        self.rabbit.freeze()
        self.addCleanup(self.rabbit.thaw)

    async def one_out(self) -> tuple[str, Inbox, IBrokerDelivery]:
        """A channel with one message, which is out."""
        channel, inbox = await self.out(1)
        return channel, inbox, inbox.deliveries[0]

    async def test_kill(self) -> None:
        """kill -9: what was confirmed is there afterwards, also what was out."""
        channel = await self.channel()
        await self.publish(channel, numbered(100))
        inbox = self.consume(channel, 10)
        await self.received(inbox, 10)
        self.rabbit.know_its_queues()
        self.rabbit.kill()
        await self.until(lambda: len(inbox.revoked) == 10, "what was out was not revoked")
        await self.refused(inbox.deliveries[0].ack())
        self.assertIsNotNone(await self.outcome(channel, b"while it is away"))
        self.assertIsNotNone(self.broker.unavailable_reason)
        self.rabbit.start()
        inbox.subscription.credit(1000)
        await self.until(lambda: set(inbox.bodies[10:]) >= set(numbered(100)), "messages are missing")
        self.assertIsNone(self.broker.unavailable_reason)
        self.assertEqual(inbox.lost_for, [])

    async def test_data_lost(self) -> None:
        """A server that comes back on an empty disk has no channels, and both sides are told."""
        channel, inbox, delivery = await self.one_out()
        self.rabbit.lose_everything()
        await self.until(lambda: inbox.lost_for, "the consumer was not told")
        self.assertEqual(inbox.revoked, [delivery])
        await self.until(lambda: self.broker.unavailable_reason is None, "it does not recover")
        self.assertIsInstance(await self.outcome(channel), ChannelMissing)
        self.assertIs(await self.done(self.broker.exists(channel)), False)

    async def test_without_a_leader(self) -> None:
        """A queue that gives no answer is warned of, and holds up no other one; deleted, its channel is lost."""
        normal = await self.channel("normal")
        await self.publish(normal, [b"1"])
        self.rabbit.know_its_queues()
        low = await self.channel("low")
        await self.publish(low, [b"low"])
        self.rabbit.kill()  # before it has written down that there is the second queue
        self.rabbit.start()
        await self.until(lambda: self.broker.unavailable_reason is None, "it does not recover")
        inbox, without = self.consume(normal, 5), self.consume(low, 5)
        (first,) = await self.received(inbox, 1)
        expected = f"{low} cannot be consumed from: it does not answer"
        await self.until(lambda: expected in self.broker.warnings, "nothing is said of it")
        self.assertIn("did not confirm", str(await self.outcome(low)))
        for body in numbered(20, 2):
            await self.published(normal, body)
            await self.received(inbox, int(body))
            await self.ack(inbox, inbox.deliveries[-1])
        self.assertEqual(inbox.revoked, [])
        await self.ack(inbox, first)
        await self.bench.delete(low)
        await self.until(lambda: without.lost_for, "its channel is not lost")
        await self.done(self.broker.ensure(low))
        await self.published(low, b"again")
        await self.bodies(low, {b"again"})
        self.assertEqual(self.broker.warnings, [])

    async def test_frozen(self) -> None:
        """A server that does not answer: publishes fail in their time, it is noticed, and is over with the answer."""
        channel = await self.channel()
        await self.publish(channel, [b"1"])
        self.freeze()
        self.assertIn("did not confirm", str(await self.outcome(channel, b"2")))
        self.assertIn("does not answer", str(self.broker.unavailable_reason))
        self.rabbit.thaw()
        await self.until(lambda: self.broker.unavailable_reason is None, "it does not recover")
        await self.published(channel, b"3")
        await self.bodies(channel, {b"1", b"3"})

    async def test_asked_while_frozen(self) -> None:
        """No question waits for long, however many there are."""
        channel = await self.channel()
        self.freeze()
        began = reactor.seconds()  # type: ignore[attr-defined]
        asked = [ask(channel) for ask in (self.broker.ensure, self.broker.exists, self.broker.depth) for _ in range(20)]
        for one in asked:
            await self.refused(one)
        self.assertLess(reactor.seconds() - began, 2.5)  # type: ignore[attr-defined]

    async def test_frozen_for_long(self) -> None:
        """Connections to a silent server are given up also when nothing is published, and deliveries are revoked."""
        _, inbox, delivery = await self.one_out()
        self.freeze()
        await self.until(lambda: inbox.revoked, "it was not revoked")
        self.assertIn("does not answer", str(self.broker.unavailable_reason))
        await self.refused(delivery.ack())
        self.rabbit.thaw()
        await self.received(inbox, 2)
        self.assertEqual(inbox.bodies, [b"0", b"0"])

    async def test_out_of_memory(self) -> None:
        """Under the alarm nothing is accepted and the reason says why; what is out can be settled, and more comes."""
        await self.under_alarm(self.rabbit.run_out_of_memory, self.rabbit.have_memory_again, "memory")

    async def test_out_of_disk(self) -> None:
        """The same."""
        await self.under_alarm(self.rabbit.run_out_of_disk, self.rabbit.have_disk_again, "disk")

    async def under_alarm(self, begin: Any, end: Any, word: str) -> None:
        channel = await self.channel()
        await self.publish(channel, numbered(2))
        inbox = self.consume(channel, 1)
        (first,) = await self.received(inbox, 1)
        begin()
        self.addCleanup(end)
        self.assertIsNotNone(await self.outcome(channel, b"3"))
        await self.until(lambda: word in str(self.broker.unavailable_reason), "it does not say why")
        self.assertIn(word, str(await self.outcome(channel, b"4")))
        await self.ack(inbox, first)
        await self.received(inbox, 2)
        await self.done(self.broker.ensure(self.bench.channel("other")))
        self.assertEqual(await self.done(self.broker.depth(channel)), 0)
        end()
        await self.until(lambda: self.broker.unavailable_reason is None, "it does not recover")
        await self.published(channel, b"5")

    async def test_down_at_the_start(self) -> None:
        """A client starts without a server, says so, and works as soon as there is one."""
        channel = await self.channel()
        self.rabbit.know_its_queues()
        self.rabbit.kill()
        broker = self.bench.new_at(self.rabbit.url)
        await self.done(broker.when_probed())
        self.assertIn("refused", str(broker.unavailable_reason))
        inbox = self.consume(channel, 1, broker)
        self.assertIsNotNone(await self.outcome(channel, b"0", broker))
        self.rabbit.start()
        await self.published(channel, b"1")
        await self.received(inbox, 1)
        self.assertEqual(inbox.bodies, [b"1"])

    async def test_stop_while_frozen(self) -> None:
        """Disconnecting from a server that does not answer comes to an end."""
        await self.one_out()
        self.freeze()
        began = reactor.seconds()  # type: ignore[attr-defined]
        await self.done(self.broker.stop())
        self.assertLess(reactor.seconds() - began, 2.5)  # type: ignore[attr-defined]


if ROOT_OF_4:

    class MeddlingTestsOf4(MeddlingTests):
        """The same, on RabbitMQ 4"""

        root = ROOT_OF_4

    class FaultTestsOf4(FaultTests):
        """The same, on RabbitMQ 4"""

        root = ROOT_OF_4
