"""Topics of Kafka that other programs use: in, out, and back. A real server, and whole processes."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.kafka.foreign import to_text, topic_fault
from tests.kafka.programs import Programs
from tests.kafka.server import KafkaServer, shared_kafka
from tests.redis.test_intake import Target
from tests.servers import Server

_tests = count(1)
GROUP = "openhqm/b"


class NamesAndTextsTests(SynchronousTestCase):
    def test_topics(self) -> None:
        """What Kafka takes for the name of a topic is one."""
        for name in ("orders", "a.b-c_1", "x" * 249):
            self.assertIsNone(topic_fault(name))
        for name in ("", ".", "..", "a b", "a/b", "ä", "x" * 250, "a\n"):
            self.assertIsNotNone(topic_fault(name))

    def test_texts(self) -> None:
        """What a header cannot have is Base64, so different bytes stay different."""
        for content, text in (
            (b"", ""),
            ("José".encode(), "José"),
            (b"\x00\x00\x00\x05", "AAAABQ=="),
            (b"\xff\xfe", "//4="),
        ):
            self.assertEqual(to_text(content), text)


class BridgeTestCase(SynchronousTestCase):
    """A gateway with its queue in its file, a target, and other programs"""

    def find_server(self) -> KafkaServer:
        """The Kafka of the test."""
        return shared_kafka()

    def broker(self) -> dict[str, Any]:
        """What the gateway is told of it."""
        return {"type": "kafka", "bootstrap_servers": [self.kafka.bootstrap]}

    def setUp(self) -> None:
        self.kafka = self.find_server()
        self.programs = Programs(self.kafka, f"{self.id().rpartition('.')[2]}{next(_tests)}.")
        self.target = Target()
        self.addCleanup(self.target.close)
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()

    def server(self, bridges: list[dict[str, Any]], endpoints: dict[str, Any] | None = None, **more: str) -> Server:
        """One with these bridges, which is not started."""
        named = {"collector": {"url": self.target.url}, **(endpoints or {})}
        return Server(
            self.directory,
            **{
                "OPENHQM_BROKERS": json.dumps({"k": self.broker()}),
                "OPENHQM_BRIDGES": json.dumps(bridges),
                "OPENHQM_PROXY__ENABLED": "true",
                "OPENHQM_PROXY__ENDPOINTS": json.dumps(named),
                "OPENHQM_PROXY__FORWARD_HEADERS": json.dumps(["X-Kind", "X-Number", "Content-Type", "ce-id"]),
                "OPENHQM_PARTITIONING__ENABLED": "true",
                **more,
            },
        )

    def bridge(self, topic: str, **more: Any) -> dict[str, Any]:
        return {"name": "b", "from": {"broker": "k", "topic": topic}, "endpoint": "collector", **more}

    def start(self, *arguments: Any, **more: Any) -> Server:
        server = self.server(*arguments, **more)
        server.start()
        self.addCleanup(server.stop)
        return server

    def bodies(self) -> list[bytes]:
        return [body for _, body in self.target.asked]


class BridgeTests(BridgeTestCase):
    def test_in_and_back(self) -> None:
        """Records reach the target with their headers, in the order of their keys, and the reply goes where asked."""
        topic, answers = self.programs.topic("in", 3), self.programs.topic("answers")
        server = self.start([self.bridge(topic)])
        event = {"ce_specversion": b"1.0", "ce_id": b"9", "ce_source": b"s", "ce_type": b"t"}
        asked = {"kafka_replyTopic": answers.encode(), "kafka_correlationId": b"\x00\xff", "X-Kind": b"asked"}
        self.programs.publish(
            topic,
            {"value": b'{"a": 1}', "key": b"k", "headers": asked},
            {"value": b"\xff\x00", "key": b"\xff", "headers": {"content-type": b"image/png", "X-Kind": b"bytes"}},
            {"value": None, "key": b"gone", "headers": {"X-Kind": b"tombstone", "X-Number": b"\x00\x00\x00\x05"}},
            {"value": b"2", "headers": event},
            *({"value": b"%d" % number, "key": b"in order"} for number in range(100, 150)),
        )
        server.until(lambda: len(self.target.asked) >= 54, "not all came")
        kinds = {headers.get("x-kind", headers.get("ce-id")): (headers, body) for headers, body in self.target.asked}
        self.assertEqual(
            {kind: body for kind, (_, body) in kinds.items() if kind},
            {"asked": b'{"a": 1}', "bytes": b"\xff\x00", "tombstone": b"null", "9": b"2"},
        )
        self.assertEqual(kinds["bytes"][0]["content-type"], "image/png")
        self.assertEqual(kinds["tombstone"][0]["x-number"], "AAAABQ==")
        ordered = [int(body) for headers, body in self.target.asked if len(body) == 3 and body.isdigit()]
        self.assertEqual(ordered, list(range(100, 150)))
        (answer,) = self.programs.read(answers, 1)
        headers = dict(answer.headers())
        self.assertEqual((answer.value(), answer.key()), (b'{"a": 1}', b"k"))
        self.assertEqual((headers["kafka_correlationId"], headers["status"]), (b"\x00\xff", b"COMPLETED"))
        server.until(lambda: self.programs.committed(GROUP, topic) == 54, "not committed")

    def test_batches_and_transactions(self) -> None:
        """Compressed batches are read; of transactions what was committed; and partitions that are added meanwhile."""
        from confluent_kafka import Producer
        from confluent_kafka.admin import NewPartitions

        topic = self.programs.topic("in")
        server = self.start([self.bridge(topic)])
        to = {"bootstrap.servers": self.kafka.bootstrap}
        for codec in ("gzip", "lz4", "zstd", "snappy"):
            producer = Producer({**to, "compression.type": codec, "linger.ms": 50})
            for number in range(20):
                producer.produce(topic, json.dumps(f"{codec}{number}").encode() + b" " * 100)
            self.assertEqual(producer.flush(20), 0)
        transacting = Producer({**to, "transactional.id": self.programs.prefix})
        transacting.init_transactions(20)
        for word, end in (("dropped", transacting.abort_transaction), ("kept", transacting.commit_transaction)):
            transacting.begin_transaction()
            transacting.produce(topic, json.dumps(word).encode())
            transacting.flush(20)
            end(20)
        server.until(lambda: b'"kept"' in self.bodies(), "the transaction did not come")
        self.programs.operator.create_partitions([NewPartitions(topic, 2)])[topic].result(20)
        producer = Producer(to)
        producer.produce(topic, b'"added"', partition=1)
        self.assertEqual(producer.flush(20), 0)
        server.until(lambda: b'"added"' in self.bodies(), "the new partition was not read")
        self.assertNotIn(b'"dropped"', self.bodies())
        self.assertEqual(len(self.bodies()), 82)

    def test_ending(self) -> None:
        """Committed at the ending, records of a gateway that is killed come again, and each is one request."""
        topic = self.programs.topic("in", 3)
        server = self.start([self.bridge(topic, acknowledge="ending")])
        self.programs.publish(topic, *({"value": b"%d" % number, "key": b"%d" % (number % 5)} for number in range(200)))
        server.until(lambda: self.target.asked, "nothing came")
        server.kill()
        server.start()
        server.until(lambda: len(set(self.bodies())) == 200, "not all came")
        server.until(lambda: self.programs.committed(GROUP, topic) == 200, "not committed")
        self.assertLessEqual(len(self.bodies()), 200 + 10)  # those that were worked on when it was killed

    def test_missing_and_made_again(self) -> None:
        """A topic that is missing is said and looked for. One that is made again has other messages, each a request."""
        name = f"{self.programs.prefix}in"
        server = self.start([self.bridge(name)])

        def warned() -> bool:
            warnings = json.loads(server.ask("GET", "/health")[2]).get("warnings", [])
            return any(f"has no topic {name}" in each for each in warnings)

        server.until(warned, "no warning")
        for round in range(2):
            self.programs.topic("in")
            self.programs.publish(name, *({"value": b'"same"'} for _ in range(3)))
            server.until(lambda round=round: len(self.bodies()) == 3 * (round + 1), "not all came")  # type: ignore[misc]
            server.until(lambda: self.programs.committed(GROUP, name) == 3, "not committed")
            self.programs.delete(name)

    def test_out(self) -> None:
        """A request is published with a key and headers from templates, also to a topic that is compacted."""
        topic = self.programs.topic("state.7", cleanup_policy="compact")
        publish = {
            "broker": "k",
            "topic": f"{self.programs.prefix}state.{{{{ payload.id }}}}",
            "key": "device-{{ payload.id }}",
            "headers": {"X-Id": "{{ payload.id }}"},
        }
        server = self.start([], {"out": {"publish": publish}})
        done = server.response(server.submit({"id": 7}, endpoint="out"))
        self.assertEqual(done["status"], "COMPLETED", done)
        (record,) = self.programs.read(topic, 1)
        headers = dict(record.headers())
        self.assertEqual((json.loads(record.value()), record.key()), ({"id": 7}, b"device-7"))
        self.assertEqual((headers["X-Id"], headers["content-type"]), (b"7", b"application/json"))
        refused = server.response(server.submit({"id": "a b"}, endpoint="out"))
        self.assertIn("nothing can be published there", refused["error"])
        id = server.submit({"id": 8}, endpoint="out")  # there is no such topic yet: it is tried again
        self.programs.topic("state.8")
        self.assertEqual(server.response(id)["status"], "COMPLETED")


class WithoutADiskTests(BridgeTestCase):
    """Bridges on a queue in memory, in processes without a listener"""

    def replica(self, topic: str, failed: str) -> Server:
        bridge = self.bridge(topic, acknowledge="ending", reply="none", dead_letters=failed)
        server = self.server(
            [bridge],
            OPENHQM_SERVER__ENABLED="false",
            OPENHQM_QUEUE__TYPE="memory",
            OPENHQM_WORKER__MAX_RETRIES="0",
        )
        server.launch()
        self.addCleanup(server.stop)
        return server

    def test_killed(self) -> None:
        """Of two replicas one is killed: what it had in hand comes to the other, and nothing is lost."""
        topic, failed = self.programs.topic("in", 4), self.programs.topic("failed")
        replicas = [self.replica(topic, failed) for _ in range(2)]
        records = [{"value": b"%d" % number, "key": b"%d" % (number % 20)} for number in range(600)]
        self.programs.publish(topic, *records[:200])
        replicas[0].until(lambda: len(self.bodies()) >= 50, "nothing came")
        self.programs.publish(topic, *records[200:], {"value": b"\xff", "headers": {"a b": b"no header"}, "key": b"k"})
        replicas[0].kill()
        replicas[1].until(lambda: len(set(self.bodies())) == 600, "not all came")
        replicas[1].until(lambda: self.programs.committed(GROUP, topic) == 601, "not committed")
        self.assertLessEqual(len(self.bodies()), 600 + 100)  # what `most` lets a replica have in hand
        (letter,) = self.programs.read(failed, 1)
        self.assertEqual((letter.value(), letter.key()), (b"\xff", b"k"))
        self.assertIn(b"cannot be a header", dict(letter.headers())["openhqm-error"])
        self.assertNotIn("openhqm-correlation-id", dict(letter.headers()))  # it never became a request
