"""Event Hubs three ways, in whole processes: a queue, a bridge in and an endpoint out, with TLS and without.

In the place of the service stands a real Kafka whose listeners ask for a connection string.
"""

from __future__ import annotations

import json
from typing import Any

from tests.kafka.server import CONNECTION_STRING, EMULATOR, KafkaServer, shared_kafka, shared_secured_kafka
from tests.kafka.test_foreign import BridgeTestCase
from tests.servers import Server


class HubsCase(BridgeTestCase):
    """Over TLS, as the service is reached"""

    def find_server(self) -> KafkaServer:
        self.secured = shared_secured_kafka()
        return self.secured

    def namespace(self) -> dict[str, Any]:
        """How it is reached."""
        endpoint = f"localhost:{self.secured.hubs_port}"
        return {"connection_string": CONNECTION_STRING, "endpoint": endpoint, "ca": str(self.secured.ca)}

    def broker(self) -> dict[str, Any]:
        return {"type": "azure_eventhubs", **self.namespace()}


class HubsTests(HubsCase):
    def test_in_out_and_back(self) -> None:
        """Events reach the target in the order of their keys, replies go where asked, requests become events."""
        hub, answers, changes = (self.programs.topic(name, 2) for name in ("in", "answers", "changes"))
        publish = {"broker": "k", "topic": changes, "key": "{{ payload.id }}", "headers": {"X-Id": "{{ payload.id }}"}}
        server = self.start([self.bridge(hub)], {"out": {"publish": publish}})
        asked = {"kafka_replyTopic": answers.encode(), "kafka_correlationId": b"\xff", "X-Kind": b"asked"}
        self.programs.publish(
            hub,
            {"value": b'{"a": 1}', "key": b"k", "headers": asked},
            *({"value": b"%d" % number, "key": b"in order"} for number in range(100, 130)),
        )
        server.until(lambda: len(self.target.asked) == 31, "not all came")
        ordered = [int(body) for body in self.bodies() if body.isdigit()]
        self.assertEqual(ordered, list(range(100, 130)))
        (answer,) = self.programs.read(answers, 1)
        self.assertEqual((answer.value(), dict(answer.headers())["kafka_correlationId"]), (b'{"a": 1}', b"\xff"))
        server.until(lambda: self.programs.committed("openhqm/b", hub) == 31, "not committed")
        done = server.response(server.submit({"id": 7}, endpoint="out"))
        self.assertEqual(done["status"], "COMPLETED", done)
        (event,) = self.programs.read(changes, 1)
        self.assertEqual((json.loads(event.value()), event.key()), ({"id": 7}, b"7"))
        self.assertEqual(dict(event.headers())["X-Id"], b"7")

    def queue(self, **more: str) -> Server:
        """A process with its queue there and nothing said but how it is reached, which is not started."""
        server = Server(
            self.directory,
            OPENHQM_QUEUE__TYPE="azure_eventhubs",
            OPENHQM_QUEUE__REQUEST_QUEUE=f"{self.programs.prefix}requests",
            OPENHQM_QUEUE__CONNECTION__AZURE_EVENTHUBS=json.dumps(self.namespace()),
            **more,
        )
        self.addCleanup(lambda: server.process and server.stop())
        return server

    def test_queue(self) -> None:
        """The queue is there with one hub that an operator has made. Without it, ``--check`` and /health name it."""
        server = self.queue()
        hub = f"{self.programs.prefix}requests"
        code, _, complaint = server.run("--check")
        self.assertIn(f"no hub {hub}", complaint)
        self.assertEqual(code, 1)
        server.launch()
        server.until(lambda: hub.encode() in server.ask("GET", "/health")[2], "the missing hub is not named")
        self.programs.topic("requests", 2)
        server.until(lambda: server.ask("GET", "/health/ready")[0] == 200, "not ready")
        ids = [server.submit({"n": number}, priority="high") for number in range(20)]
        self.assertEqual([server.response(id)["status"] for id in ids], ["COMPLETED"] * 20)
        too_large = json.dumps({"payload": "x" * (1 << 20)}).encode()
        answer = server.ask("POST", "/api/v1/submit", too_large, {"Content-Type": "application/json"})
        self.assertEqual(answer[0], 413, answer[2])


class EmulatorTests(HubsTests):
    """The same without TLS, as the emulator is reached"""

    def find_server(self) -> KafkaServer:
        return shared_kafka()

    def namespace(self) -> dict[str, Any]:
        return {"connection_string": EMULATOR, "endpoint": f"127.0.0.1:{self.kafka.sasl_port}"}
