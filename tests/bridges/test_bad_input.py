"""What no program should send, to bridges of whole processes: each message is one request or one dead letter.

The bridge goes on in every case, the message that follows reaches the target, and no reply comes back as a message.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pika
from twisted.trial.unittest import SynchronousTestCase

from openhqm.codec import decode_dead_letter
from tests.bridges.devices import Device
from tests.bridges.lax import LAST, LaxBroker
from tests.brokers import Mosquitto, RedisServer, shared_rabbitmq
from tests.mqtt.scripted import PUBLISH, packet
from tests.redis.test_intake import Target
from tests.servers import Server

MOST_BYTES = 100_000
CONTENTS = (
    b"",
    b"NaN",
    b"-Infinity",
    b"{no",
    b"\xff\xfe\x00",
    b"[" * 20_000,
    b'"\\ud800"',
    b'{"a":1}{"b":2}',
    b'{"openhqm":99}',
    b'{"openhqm":1}',
    b'{"correlation_id":1,"payload":2}',
    b'{"correlation_id":"\xff","payload":2}',
    b"1" * (MOST_BYTES + 1),
    b"9" * 5000,
)


class BadInputTests(SynchronousTestCase):
    """A gateway with its queue in its file"""

    def setUp(self) -> None:
        self.target = Target()
        self.addCleanup(self.target.close)
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()

    def start(self, broker: dict[str, Any], **source: Any) -> Server:
        server = Server(
            self.directory,
            OPENHQM_BROKERS=json.dumps({"others": broker}),
            OPENHQM_BRIDGES=json.dumps([{"name": "b", "from": {"broker": "others", **source}, "endpoint": "e"}]),
            OPENHQM_PROXY__ENABLED="true",
            OPENHQM_PROXY__ENDPOINTS=json.dumps({"e": {"url": self.target.url}}),
            OPENHQM_SERVER__MAX_BODY_BYTES=str(MOST_BYTES),
        )
        server.start()
        self.addCleanup(server.stop)
        return server

    def outcomes(self, server: Server) -> dict[str, int]:
        """How many messages became what, by its own metrics."""
        text = server.ask("GET", "/metrics")[2].decode()
        found = re.findall(r'^openhqm_bridged_messages_total\{outcome="(\w+)"\} (\S+)$', text, re.M)
        return {name: int(float(count)) for name, count in found}

    def all_came(self, server: Server, sent: int, rejected: int) -> None:
        """Each of the messages is one request or a dead letter, and the last one is with the target."""
        server.until(lambda: LAST in [body for _, body in self.target.asked], "the last one did not come")
        server.until(lambda: sum(self.outcomes(server).values()) >= sent, "not all are counted")
        found = self.outcomes(server)
        self.assertEqual((sum(found.values()), found["repeated"]), (sent, 0), found)
        self.assertGreaterEqual(found["dead_letter"], rejected)
        log = server.log()
        for sign in ("Traceback", "broke its reading", "broke down"):
            self.assertNotIn(sign, log)

    def test_mqtt(self) -> None:
        """Empty levels, UTF-8 of each length, the longest topic, response topics that come back, long correlations."""
        mosquitto = Mosquitto().start()
        self.addCleanup(mosquitto.close)
        server = self.start({"type": "mqtt", "host": "127.0.0.1", "port": mosquitto.port}, topics=["t/#"])
        device = Device(mosquitto.port)
        self.addCleanup(device.close)
        device.subscribe("answers")
        sent = 0

        def publish(topic: str, body: bytes, **properties: Any) -> None:
            nonlocal sent
            device.publish(topic, body, **properties)
            sent += 1

        def subscribed() -> bool:
            if not self.outcomes(server).get("accepted"):
                device.publish("t/first", b'"first"')
            return self.outcomes(server).get("accepted", 0) > 0

        server.until(subscribed, "the bridge does not receive")
        sent = sum(self.outcomes(server).values())
        for content in CONTENTS:
            publish("t/c", content)
        for level in (
            "",
            "/",
            "//a//",
            "a",
            "\u00e9",
            "\u6f22",
            "\U0001f600",
            "/" * 150,
            "a" * 60_000,
            "\u6f22" * 20_000,
        ):
            publish(f"t/{level}", b"1")
        for reply in ("t/loop", "t", "$SYS/a"):
            publish("t/r", b"1", ResponseTopic=reply)
        publish("t/p", b"1", UserProperty=[("a header", "1"), ("", ""), ("x", "y" * 60_000)])
        publish("t/p", b"1", ContentType="\u6f22" * 10_000)
        publish("t/q", b'"asked"', ResponseTopic="answers", CorrelationData=b"\xff" * 65_535)
        answer = device.next()
        self.assertEqual((answer.payload, len(answer.properties.CorrelationData)), (b'"asked"', 65_535))
        publish("t/last", LAST)
        self.all_came(server, sent, 6)

    def test_lax_broker(self) -> None:
        """An MQTT broker that checks nothing: each message is a request or a dead letter and is acknowledged once, and
        a packet that is no message ends the connection, and no more.
        """
        broker = LaxBroker()
        self.addCleanup(broker.close)
        poison = [packet(PUBLISH, b"\0\x05t", flags=2), packet(PUBLISH, b"\0\x01t\0\x07\0", flags=4), b"\xf0\x00"]
        poison.append(b"\x32\xff\xff\xff\xff\xff")
        good = (b"t//a", b"/", "t/\U0001f600".encode(), b"t/\x01")
        bad = (b"t/\xff", b"\xc3", b"t/+/x", b"t/#", b"", b"t/\0", b"t/" + b"a" * 65_533, b"/" * 65_535)
        properties = (
            b"\x07\x26\0\x01\xff\0\x01b",
            b"\x06\x03\0\0\x03\0\0",
            b"\x02\x7f\0",
            b"\x7f",
            b"\xff\xff\xff\xff",
        )
        for topic in (*good, *bad):
            broker.add(topic, b'"of a topic"')
        for each in properties:
            broker.add(b"t/p", b'"of properties"', each)
        long = b"\x09\xff\xff" + b"\xfe" * 65_535
        broker.add(b"t/c", b'"correlated"', b"\x82\x80\x04" + long)
        broker.poison += poison
        server = self.start({"type": "mqtt", "host": "127.0.0.1", "port": broker.port}, topics=["t/#"])
        sent = len(good) + len(bad) + len(properties) + 2
        self.all_came(server, sent, len(bad) + len(properties))
        self.assertEqual(self.outcomes(server)["dead_letter"], len(bad) + len(properties))
        server.until(lambda: len(broker.acknowledged) >= sent, "not all are acknowledged")
        self.assertEqual(broker.acknowledged, list(range(1, sent + 1)))

    def test_largest_packet(self) -> None:
        """256 MiB, in spite of what the bridge wants: a dead letter that is acknowledged, and memory has a bound."""
        broker = LaxBroker()
        self.addCleanup(broker.close)
        broker.add(b"t/c", b'"before"')
        broker.add_the_largest(b"t/big")
        broker.poison.append(b"\xf0\x00")
        about = {"type": "mqtt", "host": "127.0.0.1", "port": broker.port, "largest_message": 1024 * 1024}
        server = self.start(about, topics=["t/#"])
        self.all_came(server, 3, 1)
        self.assertEqual(self.outcomes(server)["dead_letter"], 1)
        server.until(lambda: broker.acknowledged == [1, 2, 3], "not all are acknowledged")
        self.assertLess(server.most_memory(), 160)
        with sqlite3.connect(self.directory / "data" / "openhqm.db") as file:
            (letter,) = [decode_dead_letter(body) for (body,) in file.execute("SELECT body FROM dead_letters")]
        self.assertIn("its packet has 268435455 bytes, of which the first 1310720 are read", str(letter.reason))

    def test_rabbitmq(self) -> None:
        """Headers of every kind, the longest properties, a reply into the queue itself."""
        url = f"amqp://guest:guest@127.0.0.1:{shared_rabbitmq().port}/"
        connection = pika.BlockingConnection(pika.URLParameters(url))
        self.addCleanup(connection.close)
        channel = connection.channel()
        name = f"bad-{uuid4().hex}"
        channel.queue_declare(name, durable=True)
        self.addCleanup(channel.queue_delete, name)
        server = self.start({"type": "rabbitmq", "url": url}, queue=name)
        about: list[dict[str, Any]] = [
            {"headers": {"a header": "1"}},
            {"headers": {"nested": {"a": [1, None]}, "none": None, "number": -1, "yes": True}},
            {"headers": {"x" * 255: "y" * 60_000}},
            {"headers": {"cloudEvents:specversion": "1.0", "cloudEvents:id": "", "cloudEvents:source": "s"}},
            {"reply_to": name},
            {"reply_to": "", "correlation_id": "c" * 255},
            {"reply_to": "\u6f22" * 85, "correlation_id": "\u6f22" * 85},
            {"message_id": "m" * 255, "content_type": "t" * 255, "expiration": "60000"},
        ]
        self.send(server, lambda body: channel.basic_publish("", name, body), 3, self._amqp(channel, name, about))

    def _amqp(self, channel: Any, name: str, about: list[dict[str, Any]]) -> Iterator[int]:
        for each in about:
            channel.basic_publish("", name, b"1", pika.BasicProperties(**each))
            yield 1

    def test_redis(self) -> None:
        """Fields that are repeated, are none, or are too long; replies into the stream itself and into our own keys."""
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        server = self.start({"type": "redis", "url": redis.url}, stream="in")
        entries: list[tuple[Any, ...]] = [
            ("payload", b"1", "PAYLOAD", b"2"),
            ("a", b"1", "b", b"2"),
            (b"\xff", b"1", "payload", b"2"),
            ("payload", b"1", "x" * 65_536, b"y"),
            ("payload", b"1", "x", b"y" * 65_536),
            ("payload", b"1", "x", b"\r\n"),
            ("payload", b"1", "reply_to", "in"),
            ("payload", b"1", "reply_to", "{openhqm}:q:openhqm-requests:ready:normal"),
            ("payload", b"1", "reply_to", b"\xff"),
            ("payload", b"1", "reply_to", "a" * 70_000),
            ("payload", b"1", "content_type", b"\xff", "correlation", b"\xff" * 65_536, "reply_to", "answers"),
        ]

        def others() -> Iterator[int]:
            for each in entries:
                redis.command("XADD", "in", "*", *each)
                yield 1

        self.send(server, lambda body: redis.command("XADD", "in", "*", "payload", body), 12, others())
        server.until(lambda: redis.command("XLEN", "answers") == 1, "no reply")

    def send(self, server: Server, add: Callable[[bytes], object], rejected: int, others: Iterator[int]) -> None:
        """Send the table of contents, ``others``, and the last one; of these at least ``rejected`` are no requests."""
        for content in CONTENTS:
            add(content)
        sent = len(CONTENTS) + sum(others) + 1
        add(LAST)
        self.all_came(server, sent, rejected)
