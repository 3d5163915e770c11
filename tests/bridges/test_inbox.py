"""Whole processes that two keys set up: what other programs put into the request queue reaches the target, and back."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pika
from twisted.trial.unittest import SynchronousTestCase

from tests.bridges.devices import Device
from tests.brokers import Mosquitto, shared_rabbitmq
from tests.redis.test_intake import Target
from tests.servers import Server


class InboxTests(SynchronousTestCase):
    """``server.enabled: false`` and ``proxy.enabled: true``"""

    def setUp(self) -> None:
        self.target = Target()
        self.addCleanup(self.target.close)
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()

    def start(self, type: str, **more: str) -> Server:
        server = Server(
            self.directory,
            OPENHQM_SERVER__ENABLED="false",
            OPENHQM_QUEUE__TYPE=type,
            OPENHQM_PROXY__ENABLED="true",
            OPENHQM_PROXY__DEFAULT_ENDPOINT="collector",
            OPENHQM_PROXY__ENDPOINTS=json.dumps({"collector": {"url": self.target.url}}),
            **more,
        )
        server.launch()
        self.addCleanup(server.stop)
        return server

    def bodies(self) -> set[bytes]:
        return {body for _, body in self.target.asked}

    def test_rabbitmq(self) -> None:
        """The queue of that name; the specification's message is known, and the reply goes to reply_to."""
        url = f"amqp://guest:guest@127.0.0.1:{shared_rabbitmq().port}/"
        connection = pika.BlockingConnection(pika.URLParameters(url))
        self.addCleanup(connection.close)
        channel = connection.channel()
        name = f"orders-{uuid4().hex}"
        for queue in (name, f"{name}-answers"):
            channel.queue_declare(queue, durable=True)
            self.addCleanup(channel.queue_delete, queue)
        server = self.start(
            "rabbitmq",
            OPENHQM_QUEUE__RABBITMQ_URL=url,
            OPENHQM_QUEUE__REQUEST_QUEUE=name,
            OPENHQM_QUEUE__CONNECTION__RABBITMQ__PREFIX=f"{name}.",
        )
        specified = {"correlation_id": "theirs", "timestamp": "2026-11-27T06:00:00Z", "payload": {"a": 1}}
        specified["metadata"] = {"retry_count": 0, "priority": "high"}
        about = pika.BasicProperties(reply_to=f"{name}-answers", correlation_id="7")
        channel.basic_publish("", name, json.dumps(specified).encode(), about)
        channel.basic_publish("", name, b"2")
        server.until(lambda: self.bodies() == {b'{"a": 1}', b"2"}, "not all came")
        found: list[bytes] = []

        def answered() -> bool:
            _, properties, body = channel.basic_get(f"{name}-answers", auto_ack=True)
            if properties is not None:
                self.assertEqual((properties.correlation_id, properties.headers["in_reply_to"]), ("7", "theirs"))
                found.append(body)
            return bool(found)

        server.until(answered, "no reply")
        self.assertEqual(found, [b'{"a": 1}'])

    def test_mqtt(self) -> None:
        """The topic of that name; the reply goes to the response topic."""
        mosquitto = Mosquitto().start()
        self.addCleanup(mosquitto.close)
        server = self.start(
            "mqtt", OPENHQM_QUEUE__MQTT_HOST="127.0.0.1", OPENHQM_QUEUE__CONNECTION__MQTT__PORT=str(mosquitto.port)
        )
        device = Device(mosquitto.port)
        self.addCleanup(device.close)
        device.subscribe("answers")

        def taken() -> bool:
            device.publish("openhqm-requests", b'"first"')
            return bool(self.target.asked)

        server.until(taken, "nothing came")
        device.publish("openhqm-requests", b'{"a":1}', ResponseTopic="answers", CorrelationData=b"1")
        self.assertEqual(device.next().payload, b'{"a":1}')

    def test_refused(self) -> None:
        """Where nothing else can fill the queue, it does not start, and says what to do; as a worker, it does."""
        server = Server(
            self.directory,
            OPENHQM_SERVER__ENABLED="false",
            OPENHQM_PROXY__ENABLED="true",
            OPENHQM_PROXY__DEFAULT_ENDPOINT=self.target.url,
        )
        code, _, error = server.run("--check")
        self.assertEqual(code, 1)
        self.assertIn("queue.type: other programs cannot put messages into sqlite", error)
        self.assertEqual(server.run("--check", "--role", "worker")[0], 0)
