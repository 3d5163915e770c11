"""What no program should put into a topic, in a topic of OpenHQM's and in one that a bridge reads."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any

from openhqm.codec import decode_dead_letter
from openhqm.messages import DeadLetter
from tests.kafka.test_foreign import GROUP, BridgeTestCase
from tests.servers import Server

MIB = 1024 * 1024
RECORDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("no text", {"value": b"\xff\xfe\x00"}),
    ("empty", {"value": b""}),
    ("tombstone", {"value": None, "key": b"gone"}),
    ("key and header are no UTF-8", {"value": b"{no", "key": b"\xff", "headers": {"X-Kind": b"\xff\x00"}}),
    ("deep", {"value": b"[" * 20_000}),
    ("of a later version", {"value": b'{"openhqm":99}'}),
    ("header without a name", {"value": b"NaN", "headers": {"": b"1", "a b": b"\r\n"}}),
    ("1 MiB + 1", {"value": b"1" * (MIB + 1)}),
)


class BadInputTests(BridgeTestCase):
    """A gateway whose queue and whose bridge are in one Kafka"""

    def start_over(self, topic: str) -> Server:
        queue = {"bootstrap_servers": [self.kafka.bootstrap], "prefix": self.programs.prefix, "partitions": 1}
        return self.start(
            [self.bridge(topic)],
            OPENHQM_QUEUE__TYPE="kafka",
            OPENHQM_QUEUE__PRIORITIES='["normal"]',
            OPENHQM_QUEUE__CONNECTION__KAFKA=json.dumps(queue),
            OPENHQM_WORKER__HANDLER="echo",
        )

    def publish_all(self, server: Server, topic: str) -> None:
        """Each of them alone, then in a compressed batch, then in a transaction that is aborted and one that is not.

        What is published afterwards lies behind the markers of both: Kafka writes them after it has answered.
        """
        from confluent_kafka import Producer

        to = {"bootstrap.servers": self.kafka.bootstrap, "message.max.bytes": 4 * MIB}
        batching = Producer({**to, "compression.type": "zstd", "linger.ms": 50})
        transacting = Producer({**to, "transactional.id": topic})
        transacting.init_transactions(20)
        end_of_all = self.end(topic) + 4 * len(RECORDS) + 2
        for _, record in RECORDS:
            batching.produce(topic, **record)
            self.assertEqual(batching.flush(20), 0)
        for _, record in RECORDS:
            batching.produce(topic, **record)
        self.assertEqual(batching.flush(20), 0)
        for end in (transacting.abort_transaction, transacting.commit_transaction):
            transacting.begin_transaction()
            for _, record in RECORDS:
                transacting.produce(topic, **record)
            transacting.flush(20)
            end(20)
        server.until(lambda: self.end(topic) == end_of_all, "the transaction has no marker")

    def letters(self) -> list[DeadLetter]:
        with sqlite3.connect(self.directory / "data" / "openhqm.db") as file:
            return [decode_dead_letter(body) for (body,) in file.execute("SELECT body FROM dead_letters")]

    def end(self, topic: str) -> int:
        """The offset behind the last record and the last marker of a transaction."""
        from confluent_kafka import Consumer, TopicPartition

        asking = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": f"{self.programs.prefix}asking"})
        try:
            return int(asking.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)[1])
        finally:
            asking.close()

    def test_in_ours(self) -> None:
        """Each message of another program is a dead letter with its bytes; requests before and behind it are done."""
        ours = self.programs.topic("openhqm-requests", max_message_bytes=str(4 * MIB))
        server = self.start_over(self.programs.topic("in"))
        self.assertEqual(server.response(server.submit({"n": 0}))["status"], "COMPLETED")
        self.publish_all(server, ours)
        self.assertEqual(server.response(server.submit({"n": 1}), 30)["status"], "COMPLETED")
        server.until(lambda: self.programs.committed(f"openhqm-workers.{ours}", ours) == self.end(ours), "not read")
        found = {letter.request.submission.body for letter in self.letters()}
        self.assertEqual(found, {record["value"] or b"" for _, record in RECORDS})
        self.assertNotIn("Traceback", server.log())

    def test_in_theirs(self) -> None:
        """Each is one request or one dead letter, of an aborted transaction neither, and the bridge goes on."""
        topic = self.programs.topic("in", max_message_bytes=str(4 * MIB))
        server = self.start_over(topic)
        self.publish_all(server, topic)
        self.programs.publish(topic, {"value": b'"last"'})
        server.until(lambda: b'"last"' in self.bodies(), "the last one did not come")
        server.until(lambda: self.programs.committed(GROUP, topic) == self.end(topic), "not committed")
        text = server.ask("GET", "/metrics")[2].decode()
        counted = re.findall(r'^openhqm_bridged_messages_total\{outcome="(\w+)"\} (\S+)$', text, re.MULTILINE)
        found = {name: int(float(number)) for name, number in counted}
        self.assertEqual(found["accepted"] + found["dead_letter"], 3 * len(RECORDS) + 1, found)
        self.assertEqual((found["repeated"], found["dropped"]), (0, 0))
        reasons = [letter.reason for letter in self.letters()]
        self.assertTrue(any("the queue takes at most 1000000" in reason for reason in reasons), reasons)
        self.assertNotIn("Traceback", server.log())
