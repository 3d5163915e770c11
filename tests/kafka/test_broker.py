"""What a real Kafka does to the adapter beyond the contract: who is let in, what a topic is made of, rebalances."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openhqm.errors import CannotStart
from openhqm.interfaces import Message
from openhqm.kafka.broker import KafkaBroker
from openhqm.kafka.consuming import MOST_AHEAD, MOST_AT_ONCE
from openhqm.kafka.settings import LARGEST_MESSAGE
from openhqm.testing.broker_bench import Inbox
from tests.kafka.bench import PARTITIONS, KafkaBench
from tests.kafka.server import EMULATOR, shared_kafka


class KafkaCase(TestCase):
    """On a Kafka that tests share"""

    timeout = 120

    def setUp(self) -> None:
        self.server = shared_kafka()
        self.bench = KafkaBench(self.server)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.bench.close()))

    async def until(self, holds: Callable[[], Any]) -> None:
        while not holds():
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]

    def client(self, **properties: Any) -> KafkaBroker:
        """One with properties of its own, which ends with the test."""
        broker = KafkaBroker(
            {"bootstrap.servers": self.server.bootstrap, **properties},
            reactor,
            random.random,
            group=f"{self.bench.prefix}workers",
            seconds=5.0,
            largest=LARGEST_MESSAGE,
        )
        self.addCleanup(broker.stop)
        return broker


class KafkaTests(KafkaCase):
    """`KafkaBroker`"""

    def sasl(self, password: str) -> KafkaBroker:
        """With the password that is given."""
        return self.client(
            **{
                "bootstrap.servers": f"127.0.0.1:{self.server.sasl_port}",
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": "$ConnectionString",
                "sasl.password": password,
            }
        )

    async def test_let_in(self) -> None:
        """User name and password let the client in."""
        broker = self.sasl(EMULATOR)
        await broker.start()
        await broker.when_probed()
        self.assertIsNone(broker.unavailable_reason)
        channel = self.bench.channel("requests")
        await broker.ensure(channel)
        self.assertEqual(await broker.publish(channel, [Message(b"1")]), [None])

    async def test_not_let_in(self) -> None:
        """A wrong password is the reason why it is unavailable, within 5 s, and is in no text."""
        broker = self.sasl("wr0ng")
        began = reactor.seconds()  # type: ignore[attr-defined]
        await broker.start()
        await broker.when_probed()
        self.assertLess(reactor.seconds() - began, 5.5)  # type: ignore[attr-defined]
        self.assertIn("refuses user name and password", broker.unavailable_reason or "")
        self.assertNotIn("wr0ng", broker.unavailable_reason or "")

    async def operator(self, call: Callable[[Any], Any]) -> Any:
        """What the operator's own client does."""
        from confluent_kafka.admin import AdminClient

        return await deferToThread(lambda: call(AdminClient({"bootstrap.servers": self.server.bootstrap})))

    def produce(self, channel: str, bodies: list[bytes], **more: Any) -> None:
        """What another program publishes."""
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.server.bootstrap})
        for body in bodies:
            producer.produce(channel, body, **more)
        self.assertEqual(producer.flush(20), 0)

    async def test_compacted(self) -> None:
        """A topic that is compacted is not published into, nor read."""
        from confluent_kafka.admin import NewTopic

        channel = self.bench.channel("requests")
        new = NewTopic(channel, 1, 1, config={"cleanup.policy": "compact"})
        await self.operator(lambda admin: admin.create_topics([new])[channel].result(20))
        broker = await self.bench.make()
        self.assertTrue(await broker.exists(channel))
        (outcome,) = await broker.publish(channel, [Message(b"1")])
        self.assertIn("set it to delete", outcome.reason)
        self.assertIn("set it to delete", broker.warnings[0])
        inbox = Inbox()
        broker.consume(channel, inbox)
        await self.until(lambda: inbox.lost_for)

    async def test_a_missing_topic_stays_missing(self) -> None:
        """A topic that is published into, asked for or read does not come into being by that."""
        channel = self.bench.channel("missing")
        broker, inbox = await self.bench.make(), Inbox()
        (outcome,) = await broker.publish(channel, [Message(b"1")])
        self.assertIsNotNone(outcome)
        self.assertIsNone(await broker.depth(channel))
        broker.consume(channel, inbox)
        await self.until(lambda: inbox.lost_for)
        topics = await self.operator(lambda admin: admin.list_topics(timeout=10).topics)
        self.assertNotIn(channel, topics)

    async def test_a_broken_consumer(self) -> None:
        """A consumer whose thread ends by an error is told as lost, and another one goes on behind it."""
        channel, broker, inbox = self.bench.channel("requests"), await self.bench.make(), Inbox()
        await broker.ensure(channel)
        subscription = broker.consume(channel, inbox)
        subscription.credit(5)
        await broker.publish(channel, [Message(b"1")])
        await self.until(lambda: inbox.bodies)

        def broken(seconds: float) -> None:
            raise RuntimeError("broken")

        consumer = subscription._member._consumer
        subscription._member._consumer = SimpleNamespace(poll=broken, assignment=consumer.assignment)
        await self.until(lambda: inbox.lost_for)
        self.assertIn("RuntimeError: broken", inbox.lost_for[0])
        self.assertEqual(inbox.revoked, inbox.deliveries)
        self.flushLoggedErrors(RuntimeError)
        await deferToThread(consumer.close)
        again = Inbox()
        broker.consume(channel, again).credit(5)
        await self.until(lambda: again.bodies == [b"1"])

    async def test_made_again(self) -> None:
        """A topic that is deleted and made again is read from its beginning, also where that is not noticed at once."""
        from confluent_kafka.admin import NewTopic

        channel, broker, inbox = self.bench.channel("requests"), await self.bench.make(), Inbox()

        def again(admin: Any) -> None:
            if channel in admin.list_topics(timeout=10).topics:
                admin.delete_topics([channel], operation_timeout=10)[channel].result(20)
            while True:
                try:
                    admin.create_topics([NewTopic(channel, 1, 1)])[channel].result(20)
                except Exception:  # the old one is not gone yet
                    continue
                return

        await self.operator(again)
        subscription = broker.consume(channel, inbox)
        subscription.credit(50)
        await broker.publish(channel, [Message(b"old %d" % number) for number in range(5)])
        await self.until(lambda: len(inbox.bodies) == 5)
        await gatherResults([each.ack() for each in inbox.deliveries])
        await self.operator(again)
        new = [b"new %d" % number for number in range(10)]
        await deferToThread(self.produce, channel, new)
        inbox.on_received = lambda delivery: delivery.ack().addErrback(lambda failure: None)
        await self.until(lambda: inbox.lost_for)
        after = Inbox()
        broker.consume(channel, after).credit(50)
        await self.until(lambda: len(after.bodies) == 10)
        self.assertEqual(after.bodies, new)

    async def test_partitions_added(self) -> None:
        """A reader gets the partitions that are added, reads them from their beginning, and gets nothing twice."""
        from confluent_kafka.admin import NewPartitions

        channel, broker, inbox = self.bench.channel("requests"), await self.bench.make(), Inbox()
        await broker.ensure(channel)
        broker.consume(channel, inbox).credit(50)
        old, new = [b"old %d" % number for number in range(5)], [b"new %d" % number for number in range(5)]
        await broker.publish(channel, [Message(body) for body in old])
        await self.until(lambda: len(inbox.bodies) == len(old))
        more = [NewPartitions(channel, PARTITIONS + 1)]
        await self.operator(lambda admin: admin.create_partitions(more)[channel].result(20))
        await deferToThread(self.produce, channel, new, partition=PARTITIONS)
        await self.until(lambda: len(inbox.bodies) >= len(old) + len(new))
        self.assertEqual(sorted(inbox.bodies), sorted(old + new))
        await gatherResults([each.ack() for each in inbox.deliveries])

    async def test_without_its_files(self) -> None:
        """A file with certificates that is not there ends the start with librdkafka's reason, and no traceback."""
        broker = self.client(**{"security.protocol": "SSL", "ssl.ca.location": "/nowhere/ca.pem"})
        with self.assertRaises(CannotStart) as caught:
            await broker.start()
        self.assertIn("ssl.ca.location", str(caught.exception))

    async def test_no_more_than_ahead(self) -> None:
        """Without credit a bounded number of records is read, also of partitions that are assigned meanwhile."""
        channel, first, second = self.bench.channel("requests"), await self.bench.make(), await self.bench.make()
        await first.ensure(channel)
        inboxes = [Inbox(), Inbox()]
        subscriptions = [first.consume(channel, inboxes[0]), second.consume(channel, inboxes[1])]
        await self.until(lambda: all(each.reads and each._member.partitions for each in subscriptions))
        for _ in range(60):
            await first.publish(channel, [Message(b"%d" % number) for number in range(100)])
        await self.until(lambda: all(each._member._paused for each in subscriptions))
        await second.stop()  # the first one gets the partitions of the second, while its own are paused
        await self.until(lambda: len(subscriptions[0]._member.partitions) == PARTITIONS)
        await deferLater(reactor, 2)  # type: ignore[arg-type]
        self.assertLess(len(subscriptions[0]._ahead), MOST_AHEAD + MOST_AT_ONCE)

    async def test_another_worker_joins(self) -> None:
        """When another consumer joins and leaves, nothing that was acknowledged comes again, and nothing is lost."""
        channel = self.bench.channel("requests")
        first, second = await self.bench.make(), await self.bench.make()
        await first.ensure(channel)
        inboxes = [Inbox(), Inbox()]
        acknowledged: list[bytes] = []

        def take(delivery: Any) -> None:
            body = delivery.message.body
            delivery.ack().addCallbacks(lambda _: acknowledged.append(body), lambda failure: None)

        for inbox in inboxes:
            inbox.on_received = take
        subscription = first.consume(channel, inboxes[0])
        subscription.credit(10)
        numbers = count()

        async def publish() -> None:
            outcomes = await first.publish(channel, [Message(b"%d" % next(numbers)) for _ in range(10)])
            self.assertEqual(outcomes, [None] * 10)
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]

        for _ in range(10):
            await publish()
        joined = second.consume(channel, inboxes[1])
        joined.credit(10)
        while len(inboxes[1].bodies) < 100:
            await publish()
        await joined.stop()
        for _ in range(10):
            await publish()
        published = next(numbers)
        await self.until(lambda: len(set(acknowledged)) == published)
        received = [body for inbox in inboxes for body in inbox.bodies]
        self.assertEqual((len(acknowledged), len(received)), (published, published))
