"""Requests over HTTP whose response document goes to a channel of a broker, on a real Mosquitto."""

from __future__ import annotations

import json
from typing import Any

from tests.bridges.test_end_to_end import EdgeTestCase
from tests.servers import Server


class ReplyToTests(EdgeTestCase):
    def server(self) -> Server:
        server = Server(
            self.directory,
            OPENHQM_BROKERS=json.dumps({"plant": {"type": "mqtt", "host": "127.0.0.1", "port": self.mosquitto.port}}),
            OPENHQM_CALLBACKS=json.dumps({"channels": {"plant": ["answers/*"]}}),
            OPENHQM_WORKER__HANDLER="echo",
        )
        server.start()
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        return server

    def submit(self, server: Server, topic: str, **metadata: Any) -> tuple[int, Any]:
        body = {"payload": {"a": 1}, "metadata": {"reply_to": {"broker": "plant", "topic": topic}, **metadata}}
        status, _, answer = server.ask("POST", "/api/v1/submit", body, {"Content-Type": "application/json"})
        return status, json.loads(answer)

    def test_endings(self) -> None:
        """The document of each ending comes to the topic that the request has named; another topic is 422."""
        server, device = self.server(), self.device()
        device.subscribe("answers/#")
        for topic, metadata, status in (
            ("answers/1", {}, "COMPLETED"),
            ("answers/2", {"delay": 3600}, "CANCELLED"),
        ):
            code, accepted = self.submit(server, topic, **metadata)
            self.assertEqual(code, 202, accepted)
            id = accepted["correlation_id"]
            if metadata:
                server.ask("POST", f"/api/v1/cancel/{id}")
            message = device.next()
            document = json.loads(message.payload)
            self.assertEqual((message.topic, document["correlation_id"], document["status"]), (topic, id, status))
        code, problem = self.submit(server, "commands/1")
        self.assertEqual((code, problem["field"]), (422, "metadata.reply_to"))

    def test_killed(self) -> None:
        """The process is killed between the acceptance and the ending: the next process publishes the document."""
        server, device = self.server(), self.device()
        device.subscribe("answers/#")
        _, accepted = self.submit(server, "answers/1", delay=1)
        server.kill()
        server.start()
        self.assertEqual(json.loads(device.next().payload)["correlation_id"], accepted["correlation_id"])
