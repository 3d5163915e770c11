"""Subscriptions and topics of other programs: in, out, and back, by whole processes."""

from __future__ import annotations

import json
import time
from base64 import b64decode, b64encode
from itertools import count
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.pubsub.names import subscription_fault, topic_fault
from tests.pubsub.server import PROJECT, PubSubServer
from tests.redis.test_intake import Target
from tests.servers import Server

_tests = count(1)


class NamesTests(SynchronousTestCase):
    def test_names(self) -> None:
        """What Pub/Sub takes for a name is one; a path is one of its own kind."""
        for name in ("orders", "a.b-c_1~%+", "x" * 255):
            self.assertIsNone(topic_fault(name))
            self.assertIsNone(subscription_fault(name))
        for name in ("", "ab", "1ab", "a b c", "ä-topic", "x" * 256, "googly", "abc\n", "projects/p"):
            self.assertIsNotNone(topic_fault(name), name)
        path = "projects/another-project/topics/orders"
        self.assertIsNone(topic_fault(path))
        self.assertIsNotNone(subscription_fault(path))


class BridgeTestCase(SynchronousTestCase):
    """A gateway with its queue in its file, a target, and other programs"""

    def setUp(self) -> None:
        self.pubsub = PubSubServer().start()
        self.addCleanup(self.pubsub.close)
        self.target = Target()
        self.addCleanup(self.target.close)
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()

    def server(self, bridges: list[dict[str, Any]], endpoints: dict[str, Any] | None = None, **more: str) -> Server:
        """One with these bridges, which is not started."""
        broker = {"type": "gcp_pubsub", "project_id": PROJECT, "emulator_host": self.pubsub.host, "lease_seconds": 10}
        named = {"collector": {"url": self.target.url}, **(endpoints or {})}
        return Server(
            self.directory,
            **{
                "OPENHQM_BROKERS": json.dumps({"g": {**broker, "timeout_seconds": 2}}),
                "OPENHQM_BRIDGES": json.dumps(bridges),
                "OPENHQM_PROXY__ENABLED": "true",
                "OPENHQM_PROXY__ENDPOINTS": json.dumps(named),
                "OPENHQM_PROXY__FORWARD_HEADERS": json.dumps(["X-Kind", "Content-Type", "ce-id"]),
                "OPENHQM_PARTITIONING__ENABLED": "true",
                **more,
            },
        )

    def bridge(self, subscription: str, **more: Any) -> dict[str, Any]:
        return {"name": "b", "from": {"broker": "g", "subscription": subscription}, "endpoint": "collector", **more}

    def start(self, *arguments: Any, **more: Any) -> Server:
        server = self.server(*arguments, **more)
        server.start()
        self.addCleanup(server.stop)
        return server

    def publish(self, topic: str, *messages: dict[str, Any]) -> list[str]:
        """The ids of what was published: ``data`` in bytes, attributes, an ordering key."""
        said = [{**each, "data": b64encode(each.get("data", b"")).decode()} for each in messages]
        status, answer = self.pubsub.ask("POST", f"v1/{self.pubsub.topic(topic)}:publish", messages=said)
        self.assertEqual(status, 200, answer)
        found: list[str] = answer["messageIds"]
        return found

    def pulled(self, subscription: str, least: int = 1) -> list[dict[str, Any]]:
        """Messages that another program pulls and acknowledges."""
        path, found = f"v1/{self.pubsub.subscription(subscription)}", []
        due = time.monotonic() + 30
        while len(found) < least and time.monotonic() < due:
            received = self.pubsub.ask("POST", f"{path}:pull", maxMessages=100)[1].get("receivedMessages", [])
            if received:
                self.pubsub.ask("POST", f"{path}:acknowledge", ackIds=[each["ackId"] for each in received])
            found += [each["message"] for each in received]
        return found

    def bodies(self) -> list[bytes]:
        return [body for _, body in self.target.asked]

    def warnings(self, server: Server) -> str:
        return "\n".join(json.loads(server.ask("GET", "/health")[2]).get("warnings", []))


class BridgeTests(BridgeTestCase):
    def test_in_and_back(self) -> None:
        """Messages reach the target with their attributes, those of a key in order, and the reply goes where asked."""
        self.pubsub.make("orders", "inbox", enableMessageOrdering=True)
        self.pubsub.make("answers", "answers")
        server = self.start([self.bridge("inbox")])
        asked = {"reply_to": "answers", "correlation": "c-1", "X-Kind": "asked", "content_type": "application/json"}
        event = {"ce-specversion": "1.0", "ce-id": "9", "ce-source": "s", "ce-type": "t", "content-type": "text/plain"}
        self.publish(
            "orders",
            {"data": b'{"a": 1}', "attributes": asked},
            {"data": b"\xff\x00", "attributes": {"content_type": "image/png", "X-Kind": "bytes"}},
            {"attributes": {"X-Kind": "empty"}},
            {"data": b"event", "attributes": event},
            *({"data": b"%d" % number, "orderingKey": "in order"} for number in range(100, 130)),
        )
        server.until(lambda: len(self.target.asked) >= 34, "not all came")
        kinds = {headers.get("x-kind", headers.get("ce-id")): (headers, body) for headers, body in self.target.asked}
        self.assertEqual(kinds["asked"][1], b'{"a": 1}')
        self.assertEqual((kinds["bytes"][0]["content-type"], kinds["bytes"][1]), ("image/png", b"\xff\x00"))
        self.assertEqual(kinds["empty"][1], b"")
        ordered = [int(body) for headers, body in self.target.asked if len(body) == 3 and body.isdigit()]
        self.assertEqual(ordered, list(range(100, 130)))
        (answer,) = self.pulled("answers")
        self.assertEqual(b64decode(answer["data"]), b'{"a": 1}')
        attributes = answer["attributes"]
        self.assertEqual((attributes["correlation"], attributes["status"]), ("c-1", "COMPLETED"))
        time.sleep(0.5)
        self.assertEqual(self.pulled_now("inbox"), [])

    def pulled_now(self, subscription: str) -> list[Any]:
        """What waits, and is not out."""
        path = f"v1/{self.pubsub.subscription(subscription)}:pull"
        found: list[Any] = self.pubsub.ask("POST", path, maxMessages=10, returnImmediately=True)[1].get(
            "receivedMessages", []
        )
        return found

    def test_slow_target(self) -> None:
        """The lease is kept for as long as the target takes: twice the deadline of the subscription, and once asked."""
        self.pubsub.make("orders", "inbox", ackDeadlineSeconds=10)
        self.target.delay = 14.0
        server = self.start([self.bridge("inbox", acknowledge="ending")])
        self.publish("orders", {"data": b"slow"})
        server.until(lambda: self.target.asked, "it did not come")
        time.sleep(15.0)
        self.assertEqual(self.bodies(), [b"slow"])
        self.assertEqual(self.pubsub.ask("GET", "counts")[1]["delivered"], 1)
        self.assertEqual(self.pulled_now("inbox"), [])

    def test_killed(self) -> None:
        """Acknowledged at the ending, what a gateway had that is killed comes again, and each is one request."""
        self.pubsub.make("orders", "inbox")
        server = self.start([self.bridge("inbox", acknowledge="ending")])
        self.publish("orders", *({"data": b"%d" % number} for number in range(50)))
        server.until(lambda: self.target.asked, "nothing came")
        server.kill()
        server.start()
        server.until(lambda: len(set(self.bodies())) == 50, "not all came", 40)
        self.assertLessEqual(len(self.bodies()), 50 + 10)  # those that were worked on when it was killed

    def test_warned(self) -> None:
        """A subscription that is missing, one without its topic, and one that expires: each is named."""
        self.pubsub.make("gone", "orphan")
        self.pubsub.make("orders", "soon", expirationPolicy={"ttl": "86400s"}, messageRetentionDuration="600s")
        self.pubsub.ask("DELETE", f"v1/{self.pubsub.topic('gone')}")
        bridges = [{**self.bridge(name), "name": name} for name in ("missing", "orphan", "soon")]
        server = self.start(bridges)
        server.until(lambda: "channel missing" in self.warnings(server), "the missing one is not named")
        server.until(lambda: "orphan has no topic" in self.warnings(server), "the one without a topic is not named")
        self.assertIn("soon expires after 1 days", self.warnings(server))
        self.assertIn("soon keeps a message for 0.00694444 days", self.warnings(server))
        self.pubsub.make("orders", "missing")
        self.publish("orders", {"data": b"1"})
        server.until(lambda: len(self.bodies()) == 2, "it was not looked for")

    def test_out(self) -> None:
        """A request is published with an ordering key and attributes from templates."""
        self.pubsub.make("state.7", "readers", enableMessageOrdering=True)
        publish = {
            "broker": "g",
            "topic": "state.{{ payload.id }}",
            "key": "device-{{ payload.id }}",
            "headers": {"X-Id": "{{ payload.id }}"},
        }
        server = self.start([], {"out": {"publish": publish}})
        done = server.response(server.submit({"id": 7}, endpoint="out"))
        self.assertEqual(done["status"], "COMPLETED", done)
        (message,) = self.pulled("readers")
        self.assertEqual(json.loads(b64decode(message["data"])), {"id": 7})
        self.assertEqual(message["orderingKey"], "device-7")
        attributes = message["attributes"]
        self.assertEqual((attributes["X-Id"], attributes["content_type"]), ("7", "application/json"))
        refused = server.response(server.submit({"id": "a b"}, endpoint="out"))
        self.assertIn("nothing can be published there", refused["error"])
        id = server.submit({"id": 8}, endpoint="out")  # there is no such topic yet: it is tried again
        self.pubsub.make("state.8")
        self.assertEqual(server.response(id)["status"], "COMPLETED")
