"""A gateway between MQTT and HTTP, in a process of its own, on a real Mosquitto."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.codec import decode_dead_letter
from openhqm.messages import DeadLetter
from tests.bridges.devices import Device
from tests.brokers import Mosquitto, RedisServer, shared_rabbitmq
from tests.redis.test_intake import Target
from tests.servers import Server


class EdgeTestCase(SynchronousTestCase):
    """A Mosquitto, a target and a directory. ``before`` is Python that the gateway runs first."""

    before = ""

    def setUp(self) -> None:
        self.mosquitto = self.make_mosquitto().start()
        self.addCleanup(self.mosquitto.close)
        self.target = Target()
        self.addCleanup(self.target.close)
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()

    def make_mosquitto(self) -> Mosquitto:
        """The broker, which is not started yet."""
        return Mosquitto()

    def plant(self) -> dict[str, Any]:
        """How the gateway reaches it."""
        return {"type": "mqtt", "host": "127.0.0.1", "port": self.mosquitto.port}

    def start(self, bridges: list[dict[str, Any]], endpoints: dict[str, Any] | None = None, **more: str) -> Server:
        named = {"collector": {"url": self.target.url}, **(endpoints or {})}
        server = Server(
            self.directory,
            self.before,
            OPENHQM_BROKERS=json.dumps({"plant": self.plant()}),
            OPENHQM_BRIDGES=json.dumps(bridges),
            OPENHQM_PROXY__ENABLED="true",
            OPENHQM_PROXY__ENDPOINTS=json.dumps(named),
            OPENHQM_PROXY__FORWARD_HEADERS=json.dumps(["X-Kind", "ce-id", "ce-source", "Content-Type"]),
            **more,
        )
        server.start()
        self.addCleanup(server.stop)
        return server

    def device(self, *arguments: Any, **more: Any) -> Device:
        device = Device(self.mosquitto.port, *arguments, **more)
        self.addCleanup(device.close)
        return device

    def letters(self) -> list[DeadLetter]:
        with sqlite3.connect(self.directory / "data" / "openhqm.db") as file:
            return [decode_dead_letter(body) for (body,) in file.execute("SELECT body FROM dead_letters")]

    def publish_until_taken(self, server: Server, device: Device, topic: str) -> None:
        """The first message of a test: the bridge may not have subscribed yet."""

        def taken() -> bool:
            device.publish(topic, b'"first"')
            return bool(self.target.asked)

        server.until(taken, "nothing came")

    def asked(self) -> list[tuple[dict[str, str], bytes]]:
        """What the target was asked since."""
        return [(headers, body) for headers, body in self.target.asked if body != b'"first"']


class OtherQueueTests(EdgeTestCase):
    """The gateway's own queue is somewhere else"""

    def reply(self, **queue: str) -> None:
        """A message comes to the target, and the reply goes back."""
        server = self.start(
            [{"name": "b", "from": {"broker": "plant", "topics": ["ask"]}, "endpoint": "collector"}], **queue
        )
        device = self.device()
        device.subscribe("answers/1")
        self.publish_until_taken(server, device, "ask")
        device.publish("ask", b'{"a":1}', ResponseTopic="answers/1", CorrelationData=b"1")
        self.assertEqual(device.next().payload, b'{"a":1}')

    def test_redis(self) -> None:
        """In Redis."""
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        self.reply(OPENHQM_QUEUE__TYPE="redis", OPENHQM_QUEUE__REDIS_URL=redis.url)

    def test_rabbitmq(self) -> None:
        """In RabbitMQ, with the ledger in the file."""
        url = f"amqp://guest:guest@127.0.0.1:{shared_rabbitmq().port}/"
        self.reply(
            OPENHQM_QUEUE__TYPE="rabbitmq",
            OPENHQM_QUEUE__RABBITMQ_URL=url,
            OPENHQM_QUEUE__CONNECTION__RABBITMQ__PREFIX="bridges.",
        )

    def test_mqtt(self) -> None:
        """In the same Mosquitto."""
        self.reply(
            OPENHQM_QUEUE__TYPE="mqtt",
            OPENHQM_QUEUE__MQTT_HOST="127.0.0.1",
            OPENHQM_QUEUE__CONNECTION__MQTT__PORT=str(self.mosquitto.port),
        )


class EdgeTests(EdgeTestCase):
    """MQTT in, HTTP out, and back"""

    def test_schema(self) -> None:
        """A message that is not as the schema of its endpoint has it reaches no target. It is a dead letter of the
        class ``schema``, with its bytes, and is acknowledged once. The others go on.
        """
        schema = {"type": "object", "required": ["value"], "properties": {"value": {"type": "number", "maximum": 100}}}
        endpoints = {"collector": {"url": self.target.url, "schema": schema}}
        bridge = {"name": "telemetry", "from": {"broker": "plant", "topics": ["sensors/#"]}, "endpoint": "collector"}
        server = self.start([bridge], endpoints)
        device = self.device()
        good = b'{"value": 1}'

        def taken() -> bool:
            device.publish("sensors/0", good)
            return bool(self.target.asked)

        server.until(taken, "nothing came")
        bad = [b'{"value": "high"}', b'{"value": 101}', b"{}", b"[1]", b"\xff\x00"]
        for each in bad:
            device.publish("sensors/1", each)
        device.publish("sensors/2", b'{"value": 99}')
        asked = lambda: [body for _, body in self.target.asked]  # noqa: E731
        server.until(lambda: b'{"value": 99}' in asked() and len(self.letters()) >= len(bad), "not all came")
        letters = self.letters()
        self.assertEqual({letter.reply.reason_class for letter in letters}, {"schema"})
        self.assertIn("/value", letters[0].reason)
        submissions = [letter.request.submission for letter in letters]
        kept = [each.body if each.body is not None else each.payload for each in submissions]
        self.assertEqual(sorted(kept), sorted(bad))
        server.stop()
        server.start()
        device.publish("sensors/3", b'{"value": 98}')
        server.until(lambda: b'{"value": 98}' in asked(), "nothing came after the restart")
        self.assertEqual(len(self.letters()), len(bad))
        self.assertEqual(set(asked()), {good, b'{"value": 99}', b'{"value": 98}'})

    def test_bridged(self) -> None:
        """JSON, bytes and events reach the target with their headers and their path; what is no request does not."""
        server = self.start(
            [
                {
                    "name": "telemetry",
                    "from": {"broker": "plant", "topics": ["sensors/+/value"]},
                    "endpoint": "collector",
                    "path": "/devices/{{ topic[1] }}",
                }
            ]
        )
        device = self.device()
        self.publish_until_taken(server, device, "sensors/0/value")
        device.publish("sensors/1/value", b'{"a": 1}', UserProperty=[("X-Kind", "order")])
        device.publish("sensors/2/value", b"\xff\x00", ContentType="image/png", UserProperty=[("X-Kind", "bytes")])
        event = [("specversion", "1.0"), ("id", "7"), ("source", "/plant"), ("type", "t"), ("X-Kind", "event")]
        device.publish("sensors/3/value", b"3", UserProperty=event)
        specified = {"correlation_id": "x", "timestamp": "2026-11-27T00:00:00Z", "payload": {"b": 2}, "metadata": {}}
        device.publish("sensors/4/value", json.dumps(specified), UserProperty=[("X-Kind", "specified")])
        device.publish("sensors/5/value", b'"5"', UserProperty=[("a header", "1")])
        server.until(lambda: len(self.asked()) >= 4 and self.letters(), "not all came")
        seen = {headers.get("x-kind", headers.get("ce-id")): (headers, body) for headers, body in self.asked()}
        self.assertEqual(
            {kind: body for kind, (_, body) in seen.items()},
            {"order": b'{"a": 1}', "bytes": b"\xff\x00", "7": b"3", "specified": b'{"b": 2}'},
        )
        self.assertEqual(sorted(set(self.target.paths)), [f"/devices/{number}" for number in range(5)])
        self.assertEqual(seen["bytes"][0]["content-type"], "image/png")
        self.assertEqual(seen["7"][0]["ce-source"], "/plant")
        (letter,) = self.letters()
        self.assertEqual(letter.request.submission.body, b'"5"')
        self.assertEqual(letter.request.submission.metadata["topic"], "sensors/5/value")
        self.assertIn("a header", letter.reason)

    def test_reply(self) -> None:
        """The reply goes to the message's own response topic, with its correlation data, also when it is a failure."""
        server = self.start(
            [
                {"name": "b", "from": {"broker": "plant", "topics": ["ask/#"]}},
                {
                    "name": "careful",
                    "from": {"broker": "plant", "topics": ["careful"]},
                    "reply": {"allow": ["answers/+", "other"]},
                },
            ],
            OPENHQM_PROXY__DEFAULT_ENDPOINT="collector",
        )
        device = self.device()
        device.subscribe("answers/1")
        self.publish_until_taken(server, device, "ask/0")
        device.publish("ask/1", b'{"a":1}', ResponseTopic="answers/1", CorrelationData=b"\x00\xff")
        answer = device.next()
        self.assertEqual(answer.payload, b'{"a":1}')
        properties = answer.properties
        assert properties is not None
        self.assertEqual(properties.CorrelationData, b"\x00\xff")
        self.assertEqual(dict(properties.UserProperty)["status"], "COMPLETED")
        device.publish("careful", b"2", ResponseTopic="answers/1")
        self.assertEqual(device.next().payload, b"2")
        device.publish("careful", b"3", ResponseTopic="lamps/1/set")
        server.until(self.letters, "no dead letter")
        self.assertIn("reply.allow", self.letters()[0].reason)
        # It would come back for ever.
        device.publish("ask/2", b"2", ResponseTopic="ask/3")
        server.until(lambda: len(self.letters()) == 2, "no dead letter")
        self.assertIn("is read by the bridge b", self.letters()[1].reason)

    def test_command(self) -> None:
        """A request is published to a device, and its answer is the response: with correlation data, or without."""
        command = {"broker": "plant", "topic": "lamps/{{ payload.id }}/set"}
        server = self.start(
            [],
            {
                "lamp": {"publish": command, "reply": {"timeout": 5}},
                "old": {"publish": command, "reply": {"topic": "lamps/{{ payload.id }}/state", "timeout": 5}},
                "quiet": {"publish": {**command, "topic": "quiet"}},
            },
        )

        def answer(device: Device, message: Any) -> None:
            properties = message.properties
            if properties is not None:
                device.publish(
                    properties.ResponseTopic, b'{"on":true}', wait=False, CorrelationData=properties.CorrelationData
                )
            else:
                device.publish(message.topic.replace("set", "state"), b'{"on":false}', wait=False)

        self.device(answer=answer).subscribe("lamps/1/set")
        self.device(protocol=4, answer=answer).subscribe("lamps/2/set")
        for id, endpoint, result in ((1, "lamp", True), (2, "old", False)):
            status, _, body = server.ask(
                "POST",
                "/api/v1/submit",
                {"payload": {"id": id}, "metadata": {"endpoint": endpoint}},
                {"Prefer": "wait=10"},
            )
            self.assertEqual((status, json.loads(body)["result"]), (200, {"on": result}), body)
        refused = server.response(server.submit({"id": "1/#"}, endpoint="lamp"))
        self.assertIn("cannot be a part of a topic", refused["error"])
        watching = self.device()
        watching.subscribe("quiet")
        done = server.response(server.submit({"id": 1}, endpoint="quiet"))
        self.assertEqual((done["status"], watching.next().payload), ("COMPLETED", b'{"id": 1}'))

    def test_without_a_door(self) -> None:
        """A process without HTTP of its own takes messages from MQTT to HTTP; --check looks for its broker."""
        server = Server(
            self.directory,
            OPENHQM_SERVER__ENABLED="false",
            OPENHQM_BROKERS=json.dumps(
                {
                    "plant": {"type": "mqtt", "host": "127.0.0.1", "port": self.mosquitto.port},
                    "away": {"type": "mqtt", "host": "127.0.0.1", "port": 1},
                }
            ),
            OPENHQM_BRIDGES=json.dumps([{"name": "b", "from": {"broker": "plant", "topics": ["in"]}}]),
            OPENHQM_PROXY__ENABLED="true",
            OPENHQM_PROXY__DEFAULT_ENDPOINT=self.target.url,
        )
        code, out, _ = server.run("--check")
        self.assertEqual((code, out.count("note: broker")), (0, 1), out)
        self.assertIn("note: broker away: cannot use mqtt://127.0.0.1:1: Connection refused", out)
        server.launch()
        self.addCleanup(server.stop)
        self.publish_until_taken(server, self.device(), "in")

    def test_killed(self) -> None:
        """What came while the gateway was down, and what it had not acknowledged, is done after its restart, once."""
        server = self.start(
            [{"name": "b", "from": {"broker": "plant", "topics": ["in"]}, "endpoint": "collector"}],
        )
        device = self.device()
        self.publish_until_taken(server, device, "in")
        server.kill()
        for number in range(200):
            device.publish("in", str(number))
        server.start()
        server.until(lambda: len({body for _, body in self.asked()}) == 200, "not all came")
        self.assertEqual(len(self.asked()), 200)
