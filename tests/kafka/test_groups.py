"""What a consumer group may do to a reader: it is slow, its thread stands still, and another program has its name."""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from openhqm.interfaces import Message
from openhqm.testing.broker_bench import Inbox
from tests.kafka.test_broker import KafkaCase
from tests.kafka.test_foreign import BridgeTestCase

POLL_SECONDS = 10.0
"""The shortest ``max.poll.interval.ms`` that librdkafka takes beside the session time-out of a member."""


class GroupTests(KafkaCase):
    """`KafkaBroker`, where a member that does not poll for `POLL_SECONDS` is out of its group"""

    def broker(self) -> Any:
        return self.client(**{"max.poll.interval.ms": int(POLL_SECONDS * 1000)})

    async def test_without_credit(self) -> None:
        """A reader that is given no credit for longer than that stays in its group, and goes on where it was."""
        channel, broker, inbox = self.bench.channel("requests"), self.broker(), Inbox()
        await broker.start()
        await broker.when_probed()
        await broker.ensure(channel)
        reading = broker.consume(channel, inbox)
        reading.credit(1)
        await broker.publish(channel, [Message(b"1"), Message(b"2")])
        await self.until(lambda: len(inbox.bodies) == 1)
        reading.credit(0)
        await deferLater(reactor, 1.5 * POLL_SECONDS)  # type: ignore[arg-type]
        self.assertEqual(inbox.revoked, [])
        reading.credit(2)
        await self.until(lambda: len(inbox.bodies) == 2)
        await inbox.deliveries[1].ack()

    async def test_a_thread_that_stands_still(self) -> None:
        """A reader that did not poll for longer has lost its partitions: that is told, and it begins again."""
        channel, broker, inbox = self.bench.channel("requests"), self.broker(), Inbox()
        await broker.start()
        await broker.when_probed()
        await broker.ensure(channel)
        reading = broker.consume(channel, inbox)
        reading.credit(5)
        await broker.publish(channel, [Message(b"1")])
        await self.until(lambda: len(inbox.bodies) == 1)
        read, stood = reading._member._read, []

        def stand() -> None:
            if not stood:
                stood.append(time.sleep(1.5 * POLL_SECONDS))
            read()

        reading._member._read = stand
        await self.until(lambda: inbox.revoked)
        outcome = await inbox.deliveries[0].ack().addErrback(lambda failure: failure.value)
        self.assertIn("another consumer may have it", outcome.reason)
        await self.until(lambda: len(inbox.bodies) == 2)
        self.assertEqual(inbox.bodies, [b"1", b"1"])
        await inbox.deliveries[1].ack()

    async def test_a_foreign_member(self) -> None:
        """Another program in the group that shares partitions by another protocol is said, until it is gone."""
        from confluent_kafka import Consumer

        channel, broker, inbox = self.bench.channel("requests"), await self.bench.make(), Inbox()
        await broker.ensure(channel)
        group = broker.group_of(channel)
        other = Consumer(
            {
                "bootstrap.servers": self.server.bootstrap,
                "group.id": group,
                "partition.assignment.strategy": "range",
                "session.timeout.ms": 6000,
            }
        )
        other.subscribe([channel])
        while not other.assignment():
            await deferToThread(other.poll, 0.1)
        broker.consume(channel, inbox).credit(5)
        while not any("another program" in each for each in broker.warnings):
            await deferToThread(other.poll, 0.1)
        self.assertIn(group, " ".join(broker.warnings))
        await deferToThread(other.close)
        await broker.publish(channel, [Message(b"1")])
        await self.until(lambda: inbox.bodies)
        self.assertEqual(broker.warnings, [])


class SameGroupTests(BridgeTestCase):
    def test_two_bridges(self) -> None:
        """Two bridges on two topics with one group each get what is theirs, and each is committed."""
        one, two = self.programs.topic("one"), self.programs.topic("two")
        bridges = [
            {"name": name, "from": {"broker": "k", "topic": topic, "client_id": "same"}, "endpoint": "collector"}
            for name, topic in (("one", one), ("two", two))
        ]
        server = self.start(bridges)
        for topic in (one, two):
            self.programs.publish(topic, *({"value": json.dumps(f"{topic}{n}").encode()} for n in range(20)))
        server.until(lambda: len(set(self.bodies())) == 40, "not all came")
        for topic in (one, two):
            server.until(lambda topic=topic: self.programs.committed("same", topic) == 20, "not committed")  # type: ignore[misc]
