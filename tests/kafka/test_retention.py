"""What Kafka removes before it was read: each message is delivered or counted, and a request ends all the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from openhqm.kafka.consuming import MOST_AHEAD
from openhqm.testing.broker_bench import Inbox
from tests.kafka.programs import Programs
from tests.kafka.server import shared_kafka
from tests.kafka.test_broker import KafkaCase
from tests.kafka.test_foreign import BridgeTestCase
from tests.servers import Server


class SubscriptionTests(KafkaCase):
    """`KafkaBroker`. An operator removes what retention would remove: all before an offset."""

    def setUp(self) -> None:
        super().setUp()
        self.programs = Programs(self.server, self.bench.prefix)

    async def published(self, topic: str, first: int, end: int) -> None:
        records = [{"value": b"%d" % number} for number in range(first, end)]
        await deferToThread(self.programs.publish, topic, *records)

    async def test_between_two_readers(self) -> None:
        """What was removed while no member was there is counted once, and what is left is delivered."""
        topic, broker = self.programs.topic("orders"), await self.bench.make()
        await self.published(topic, 0, 20)
        first, second, third = Inbox(), Inbox(), Inbox()
        reading = broker.consume(topic, first)
        reading.credit(3)
        await self.until(lambda: len(first.bodies) == 3)
        await first.deliveries[2].ack()
        await reading.close("the test goes on")
        await deferToThread(self.programs.remove, topic, 10)
        reading = broker.consume(topic, second)
        reading.credit(50)
        await self.until(lambda: len(second.bodies) == 10)
        self.assertEqual(second.bodies, [b"%d" % number for number in range(10, 20)])
        self.assertEqual(second.dropped_in_all, 7)
        self.assertIn(f"has removed 7 messages of {topic} that the group", " ".join(broker.warnings))
        group = broker.group_of(topic)
        await self.until(lambda: self.programs.committed(group, topic) == 10)
        await reading.close("the test goes on")
        broker.consume(topic, third).credit(50)
        await self.until(lambda: len(third.bodies) == 10)
        self.assertEqual(third.dropped_in_all, 0)

    async def test_before_one_that_is_slow(self) -> None:
        """What is removed before a member that reads no further is counted, to the last message."""
        topic, broker, inbox = self.programs.topic("orders"), await self.bench.make(), Inbox()
        reading = broker.consume(topic, inbox)
        await self.published(topic, 0, MOST_AHEAD + 100)
        await self.until(lambda: reading._member is not None and reading._member._paused)
        await self.published(topic, MOST_AHEAD + 100, MOST_AHEAD + 200)
        await deferToThread(self.programs.remove, topic, MOST_AHEAD + 190)
        reading.credit(1000)
        await self.until(lambda: inbox.bodies[-1:] == [b"%d" % (MOST_AHEAD + 199)])
        self.assertEqual(len(inbox.bodies) + inbox.dropped_in_all, MOST_AHEAD + 200)
        self.assertGreater(inbox.dropped_in_all, 0)

    async def test_a_new_group(self) -> None:
        """A group that has read nothing begins with what is left, and nothing is counted: it has lost nothing."""
        topic, broker, inbox = self.programs.topic("orders"), await self.bench.make(), Inbox()
        await self.published(topic, 0, 10)
        await deferToThread(self.programs.remove, topic, 4)
        broker.consume(topic, inbox).credit(50)
        await self.until(lambda: len(inbox.bodies) == 6)
        self.assertEqual((inbox.dropped_in_all, broker.warnings), (0, []))


class QueueTests(SynchronousTestCase):
    """A whole process with its queue in Kafka, and its results in its file"""

    def server(self, **more: str) -> Server:
        return Server(
            self.directory,
            OPENHQM_QUEUE__TYPE="kafka",
            OPENHQM_QUEUE__PRIORITIES='["normal"]',
            OPENHQM_QUEUE__CONNECTION__KAFKA=json.dumps(
                {"bootstrap_servers": [shared_kafka().bootstrap], "prefix": "removed.", "partitions": 1}
            ),
            **more,
        )

    def test_removed(self) -> None:
        """Requests whose messages Kafka has removed are published again as soon as the rest was worked on."""
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()
        programs, topic = Programs(shared_kafka(), "removed."), "removed.openhqm-requests"
        server = self.server()
        server.start()
        first = server.submit({"n": 0})
        self.assertEqual(server.response(first)["status"], "COMPLETED")
        server.until(lambda: programs.committed(f"openhqm-workers.{topic}", topic) == 1, "not committed")
        server.stop()
        listener = self.server(OPENHQM_WORKER__ENABLED="false")
        listener.start()
        ids = [listener.submit({"n": number}) for number in range(10)]
        listener.stop()
        programs.remove(topic, 6)
        server.start()
        self.addCleanup(server.stop)
        self.assertEqual([server.response(id, 60)["status"] for id in ids], ["COMPLETED"] * 10)
        warnings = " ".join(json.loads(server.ask("GET", "/health")[2])["warnings"])
        self.assertIn(f"has removed 5 messages of {topic}", warnings)
        self.assertIn("5 requests are published again", warnings)


class BridgeTests(BridgeTestCase):
    def test_removed(self) -> None:
        """A bridge counts what it was never given, says so, and goes on with what is left."""
        topic = self.programs.topic("in")
        server = self.start([self.bridge(topic)])
        self.publish(topic, 0, 5)
        server.until(lambda: self.programs.committed("openhqm/b", topic) == 5, "not committed")
        server.stop()
        self.publish(topic, 5, 30)
        self.programs.remove(topic, 25)
        server.start()
        server.until(lambda: len(self.bodies()) == 10, "not all came")
        self.assertEqual(sorted(self.bodies()[5:]), [b"%d" % number for number in range(25, 30)])
        self.assertIn(b'openhqm_bridged_messages_total{outcome="dropped"} 20.0', server.ask("GET", "/metrics")[2])
        warnings = json.loads(server.ask("GET", "/health")[2])["warnings"]
        self.assertIn(f"has removed 20 messages of {topic} that the group openhqm/b", " ".join(warnings))
        self.assertIn("has removed 20 messages", server.log())

    def publish(self, topic: str, first: int, end: int) -> None:
        records: list[dict[str, Any]] = [{"value": b"%d" % number} for number in range(first, end)]
        self.programs.publish(topic, *records)
