"""Queues of RabbitMQ that other programs use: in, out, and back. A real server, and whole processes."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import pika
from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import shared_rabbitmq
from tests.redis.test_intake import Target
from tests.servers import Server


class BridgeTests(SynchronousTestCase):
    """A gateway with its queue in its file"""

    def setUp(self) -> None:
        self.rabbitmq = shared_rabbitmq()
        self.target = Target()
        self.addCleanup(self.target.close)
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.rabbitmq.port}/"
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        self.addCleanup(connection.close)
        self.channel = connection.channel()

    def start(self, endpoints: dict[str, Any] | None = None, max_retries: str = "3", **bridge: Any) -> Server:
        made = {"name": "b", "from": {"broker": "office", "queue": "in"}, "endpoint": "collector", **bridge}
        server = Server(
            self.directory,
            OPENHQM_BROKERS=json.dumps({"office": {"type": "rabbitmq", "url": self.url}}),
            OPENHQM_BRIDGES=json.dumps([made]),
            OPENHQM_PROXY__ENABLED="true",
            OPENHQM_PROXY__ENDPOINTS=json.dumps({"collector": {"url": self.target.url}, **(endpoints or {})}),
            OPENHQM_PROXY__FORWARD_HEADERS=json.dumps(["X-Kind", "Content-Type", "ce-id"]),
            OPENHQM_WORKER__MAX_RETRIES=max_retries,
        )
        server.start()
        self.addCleanup(server.stop)
        return server

    def queue(self, name: str) -> None:
        self.channel.queue_declare(name, durable=True)
        self.channel.queue_purge(name)
        self.addCleanup(self.channel.queue_delete, name)

    def answerer(self, queue: str) -> None:
        """Answers what comes to the queue with what it was sent, as any client of AMQP does."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        channel = connection.channel()

        def answer(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            about = pika.BasicProperties(correlation_id=properties.correlation_id)
            channel.basic_publish("", properties.reply_to, b'{"got":%b}' % body, about)

        channel.basic_consume(queue, answer, auto_ack=True)

        def consume() -> None:
            with contextlib.suppress(Exception):
                channel.start_consuming()

        thread = threading.Thread(target=consume, daemon=True)
        thread.start()

        def end() -> None:
            connection.add_callback_threadsafe(connection.close)
            thread.join(10)

        self.addCleanup(end)

    def publish(self, body: bytes, **properties: Any) -> None:
        self.channel.basic_publish("", "in", body, pika.BasicProperties(**properties))

    def waiting(self, name: str) -> int:
        found: int = self.channel.queue_declare(name, passive=True).method.message_count
        return found

    def test_in_and_back(self) -> None:
        """Messages reach the target with their headers, and the reply goes to reply_to, with its correlation."""
        self.queue("in")
        self.queue("answers")
        server = self.start()
        self.publish(b'{"a": 1}', headers={"X-Kind": "order"}, reply_to="answers", correlation_id="7")
        self.publish(b"\xff\x00", content_type="image/png", headers={"X-Kind": "bytes"})
        event = {"cloudEvents:specversion": "1.0", "cloudEvents:id": "9", "cloudEvents:source": "s"}
        self.publish(b"2", headers={**event, "cloudEvents:type": "t"})
        for _ in range(2):  # its producer did not know whether the first one had come
            self.publish(b"3", message_id="same", headers={"X-Kind": "twice"})
        server.until(lambda: len(self.target.asked) >= 4 and self.waiting("answers"), "not all came")
        kinds = {headers.get("x-kind", headers.get("ce-id")): body for headers, body in self.target.asked}
        self.assertEqual(kinds, {"order": b'{"a": 1}', "bytes": b"\xff\x00", "9": b"2", "twice": b"3"})
        self.assertEqual(len(self.target.asked), 4)
        _, properties, body = self.channel.basic_get("answers", auto_ack=True)
        self.assertEqual((properties.correlation_id, body), ("7", b'{"a": 1}'))
        self.assertEqual(
            (properties.headers["status"], properties.content_type), ("COMPLETED", "application/octet-stream")
        )
        self.assertEqual(properties.delivery_mode, 2)
        server.until(lambda: self.waiting("in") == 0, "not acknowledged")

    def test_ending(self) -> None:
        """Acknowledged at the ending, a message of a gateway that is killed comes again, and is one request."""
        self.queue("in")
        server = self.start(acknowledge="ending")
        for number in range(50):
            self.publish(str(number).encode(), message_id=str(number))
        server.until(lambda: self.target.asked, "nothing came")
        server.kill()
        server.start()
        server.until(lambda: len({body for _, body in self.target.asked}) == 50, "not all came")
        server.until(lambda: self.waiting("in") == 0, "not acknowledged")
        self.assertLessEqual(len(self.target.asked), 50 + 5)  # those that were worked on when it was killed

    def test_missing_queue(self) -> None:
        """A queue that is not there is looked for, and said in /health."""
        server = self.start()

        def warned() -> bool:
            warnings = json.loads(server.ask("GET", "/health")[2]).get("warnings", [])
            return any("has no queue in" in each for each in warnings)

        server.until(warned, "no warning")
        self.queue("in")
        self.publish(b"1")
        server.until(lambda: self.target.asked, "nothing came")

    def test_out(self) -> None:
        """A request is published to a queue, with its headers and its type; where there is none, it is tried again."""
        self.queue("in")
        self.queue("out.7")
        publish = {"broker": "office", "topic": "out.{{ payload.id }}", "headers": {"X-Id": "{{ payload.id }}"}}
        server = self.start({"out": {"publish": {**publish, "expiry": 60}}})
        done = server.response(server.submit({"id": 7}, endpoint="out"))
        self.assertEqual(done["status"], "COMPLETED")
        _, properties, body = self.channel.basic_get("out.7", auto_ack=True)
        self.assertEqual((json.loads(body), properties.content_type), ({"id": 7}, "application/json"))
        self.assertEqual((properties.headers["X-Id"], properties.expiration), ("7", "60000"))
        id = server.submit({"id": 8}, endpoint="out")
        self.queue("out.8")
        self.assertEqual(server.response(id)["status"], "COMPLETED")

    def test_exchange(self) -> None:
        """A request goes to an exchange with a routing key of its own; what it routes nowhere is tried again."""
        self.queue("in")
        self.queue("billed")
        self.channel.exchange_declare("shop", "topic", durable=True)
        self.addCleanup(self.channel.exchange_delete, "shop")
        self.channel.queue_bind("billed", "shop", "orders.*.paid")
        publish = {"broker": "office", "exchange": "shop", "topic": "orders.{{ payload.id }}.paid"}
        server = self.start({"out": {"publish": publish}})
        self.assertEqual(server.response(server.submit({"id": 7}, endpoint="out"))["status"], "COMPLETED")
        method, _, body = self.channel.basic_get("billed", auto_ack=True)
        self.assertEqual((method.exchange, method.routing_key), ("shop", "orders.7.paid"))
        self.assertEqual(json.loads(body), {"id": 7})
        self.channel.queue_unbind("billed", "shop", "orders.*.paid")
        id = server.submit({"id": 8}, endpoint="out")
        self.channel.queue_bind("billed", "shop", "orders.8.*")
        self.assertEqual(server.response(id)["status"], "COMPLETED")

    def test_command(self) -> None:
        """A caller that waits has the answer of another program; where none comes, the attempt has timed out."""
        self.queue("in")
        self.queue("commands")
        self.queue("silent")
        publish = {"broker": "office", "topic": "commands"}
        server = self.start(
            {
                "lamp": {"publish": publish, "reply": {"timeout": 10}},
                "silent": {"publish": {**publish, "topic": "silent"}, "reply": {"timeout": 0.2}},
            },
            max_retries="0",
        )
        self.answerer("commands")
        for number in range(3):
            asked = {"payload": {"id": number}, "metadata": {"endpoint": "lamp"}}
            status, _, body = server.ask("POST", "/api/v1/submit", asked, {"Prefer": "wait=10"})
            self.assertEqual((status, json.loads(body)["result"]), (200, {"got": {"id": number}}), body)
        self.assertEqual(server.response(server.submit({"id": 1}, endpoint="silent"))["status"], "TIMEOUT")
