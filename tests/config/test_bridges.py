"""Brokers of other programs, bridges and endpoints that publish: what an operator may say, and what is refused."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.config.model import Settings
from openhqm.errors import ConfigurationError
from openhqm.policy.queue_names import BACKLOG

PLANT = {"type": "mqtt", "host": "plant.example", "password": "secret-text", "username": "u"}
BRIDGE = {"name": "b", "from": {"broker": "plant", "topics": ["a/+"]}, "endpoint": "e"}
ENDPOINT = {"url": "http://localhost:1"}


def read(bridges: list[Any], endpoints: dict[str, Any] | None = None, **more: Any) -> Settings:
    """The settings with these bridges."""
    document = {
        "brokers": {"plant": PLANT},
        "bridges": bridges,
        "proxy": {"enabled": True, "endpoints": {"e": ENDPOINT, **(endpoints or {})}},
        **more,
    }
    return load("cfg", {}, PRODUCTS, json.dumps(document).encode())


class BridgesTests(SynchronousTestCase):
    def refused(self, key: str, reason: str, *arguments: Any, **more: Any) -> None:
        """The configuration is refused for one reason."""
        error = self.assertRaises(ConfigurationError, read, *arguments, **more)
        self.assertEqual([complaint.key for complaint in error.complaints], [key], str(error))
        self.assertIn(reason, error.complaints[0].reason)
        self.assertNotIn("secret-text", str(error))

    def bridge(self, **more: Any) -> dict[str, Any]:
        return {**BRIDGE, **more}

    def source(self, **more: Any) -> dict[str, Any]:
        return {**BRIDGE, "from": {"broker": "plant", "topics": ["a/+"], **more}}

    def test_read(self) -> None:
        """A bridge knows its broker, and what that knows it by."""
        settings = read([BRIDGE])
        self.assertEqual(settings.brokers["plant"].type, "mqtt")
        self.assertEqual(settings.brokers["plant"].record.host, "plant.example")
        self.assertEqual(settings.bridges[0].client_id(settings.brokers), "openhqm/b")
        self.assertEqual(settings.reply_brokers, ("plant",))
        self.assertNotIn("secret-text", repr(settings))

    def test_reply_channels(self) -> None:
        """Requests may name channels of a known broker that can be published to, and that no bridge reads."""
        for channels, reason in (
            ({"other": ["x"]}, "there is no broker 'other'"),
            ({"plant": ["x/#"]}, "'x/#'"),
            ({"plant": ["a/b"]}, "is read by a bridge"),
            ({"plant": ["x/*"]}, "name each topic"),
        ):
            key = f"callbacks.channels.{next(iter(channels))}"
            self.refused(key, reason, [BRIDGE], callbacks={"channels": channels})
        settings = read([BRIDGE], callbacks={"channels": {"plant": ["x/b"]}})
        self.assertEqual(settings.reply_brokers, ("plant",))
        self.assertIn("replies-plant", settings.addressing().hidden)
        self.assertEqual(read([], callbacks={"channels": {"plant": ["x/*"]}}).reply_brokers, ("plant",))

    def test_environment(self) -> None:
        """Brokers and bridges can come from the environment, as JSON."""
        environment = {"OPENHQM_BROKERS": json.dumps({"plant": PLANT}), "OPENHQM_BRIDGES": json.dumps([BRIDGE])}
        document = {"proxy": {"enabled": True, "endpoints": {"e": ENDPOINT}}}
        self.assertEqual(load("cfg", environment, PRODUCTS, json.dumps(document).encode()).bridges[0].name, "b")

    def test_brokers(self) -> None:
        """A broker has a type that other programs can use, and the keys of that one."""
        for broker, key, reason in (
            ({"host": "x"}, "brokers.p.type", "must be"),
            (
                {"type": "sqlite"},
                "brokers.p.type",
                "must be redis or rabbitmq or mqtt or kafka or azure_eventhubs or gcp_pubsub or sqs or custom",
            ),
            ({"type": "mqtt", "hots": "x"}, "brokers.p.hots", "did you mean host?"),
            ({"type": "mqtt", "prefix": "x/"}, "brokers.p.prefix", "has no effect"),
            ({"type": "mqtt", "port": 0}, "brokers.p.port", "must be from 1"),
        ):
            self.refused(key, reason, [self.source(broker="p")], brokers={"p": broker})
        self.refused("brokers.a.b", "name", [], brokers={"a.b": {"type": "mqtt"}})

    def test_what_is_missing(self) -> None:
        """A bridge to an endpoint, or from a broker, that does not exist is refused."""
        self.refused("bridges.0.endpoint", "no endpoint 'f'", [self.bridge(endpoint="f")])
        self.refused("bridges.0.from.broker", "no broker 'x'", [self.source(broker="x")])
        self.refused("bridges.0.from.topics", "is missing", [self.source(topics=[])])
        self.refused("bridges.0.from", "is missing", [{"name": "b"}])
        self.refused("bridges.0.name", "must be 1 to 64", [self.bridge(name="a/b")])

    def test_topics(self) -> None:
        """What is no topic filter is refused (MQTT 5, section 4.7)."""
        for topic in ("", "a/#/b", "a+", "a/b#", "$share/g", "a\x00", "x" * 65536):
            self.refused("bridges.0.from.topics", "", [self.source(topics=[topic])])
        read([self.source(topics=["#", "+/a/+", "/a//b/", "$share/g/a/#", "$SYS/broker/#", "ä/ö"])])
        self.refused("bridges.0.from.queue", "must be left out", [self.source(queue="q")])

    def test_queue(self) -> None:
        """A broker with queues has one for each bridge, acknowledged one by one; answers come to an address of ours."""
        brokers = {"plant": PLANT, "office": {"type": "rabbitmq"}}
        bridge = {"name": "b", "from": {"broker": "office", "queue": "in"}, "endpoint": "e", "acknowledge": "ending"}
        read([bridge], brokers=brokers)
        publish = {"broker": "office", "topic": "out"}
        read([], {"x": {"publish": {**publish, "expiry": 5, "exchange": "e"}, "reply": {}}}, brokers=brokers)
        self.refused("bridges.0.reply.topic", "is read by", [{**bridge, "reply": {"topic": "in"}}], brokers=brokers)
        other = {**bridge, "from": {"broker": "office", "topics": ["a"]}}
        error = self.assertRaises(ConfigurationError, read, [other], brokers=brokers)
        keys = [complaint.key for complaint in error.complaints]
        self.assertEqual(keys, ["bridges.0.from.topics", "bridges.0.from.queue"])
        for endpoint, key in (
            ({"publish": {**publish, "qos": 0}}, "publish.qos"),
            ({"publish": {**publish, "retain": True}}, "publish.retain"),
            ({"publish": {**publish, "exchange": ""}}, "publish.exchange"),
            ({"publish": {**publish, "exchange": "e" * 256}}, "publish.exchange"),
            ({"publish": publish, "reply": {"topic": "answers"}}, "reply.topic"),
            ({"publish": {"broker": "plant", "topic": "out", "exchange": "e"}}, "publish.exchange"),
        ):
            self.refused(f"proxy.endpoints.x.{key}", "", [], {"x": endpoint}, brokers=brokers)

    def test_topic(self) -> None:
        """A broker with logs has one topic for each bridge; what is published there may have a key."""
        hubs = "Endpoint=sb://n.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=secret-text"
        for broker in ({"type": "kafka"}, {"type": "azure_eventhubs", "connection_string": hubs}):
            brokers = {"plant": PLANT, "logs": broker}
            bridge = {"name": "b", "from": {"broker": "logs", "topic": "in"}, "endpoint": "e", "acknowledge": "ending"}
            read([bridge], brokers=brokers)
            publish = {"broker": "logs", "topic": "out", "key": "{{ payload.id }}"}
            read([], {"x": {"publish": publish}}, brokers=brokers)
            self.refused("bridges.0.reply.topic", "is read by", [{**bridge, "reply": {"topic": "in"}}], brokers=brokers)
            self.refused(
                "bridges.0.from.topic",
                "letters",
                [{**bridge, "from": {"broker": "logs", "topic": "a b"}}],
                brokers=brokers,
            )
            for endpoint, key in (
                ({"publish": {**publish, "expiry": 5}}, "publish.expiry"),
                ({"publish": {**publish, "key": "{{ a b }}"}}, "publish.key"),
                ({"publish": publish, "reply": {}}, "reply"),
            ):
                self.refused(f"proxy.endpoints.x.{key}", "", [], {"x": endpoint}, brokers=brokers)
        for broker, key in (
            ({"type": "kafka", "prefix": "x."}, "prefix"),
            ({"type": "kafka", "security": {"ca": "x.pem"}}, "security.ca"),
            ({"type": "azure_eventhubs"}, "connection_string"),
        ):
            bridge = {"name": "b", "from": {"broker": "logs", "topic": "in"}, "endpoint": "e"}
            self.refused(f"brokers.logs.{key}", "", [bridge], brokers={"logs": broker})
        keyed = {"publish": {"broker": "plant", "topic": "out", "key": "k"}}
        self.refused("proxy.endpoints.x.publish.key", "has no effect", [], {"x": keyed})

    def test_without_a_disk(self) -> None:
        """Where the queue is gone with a process that has no listener, its bridges let nothing rest there alone."""
        more = {"queue": {"type": "memory"}, "server": {"enabled": False}}
        more["brokers"] = {"plant": {"type": "kafka"}}
        bridge = {"name": "b", "from": {"broker": "plant", "topic": "in"}, "endpoint": "e", "acknowledge": "ending"}
        sound = {**bridge, "dead_letters": "failed", "reply": "none"}
        read([sound], **more)
        for changed, key in (
            ({"acknowledge": "acceptance"}, "acknowledge"),
            ({"dead_letters": None}, "dead_letters"),
            ({"reply": None}, "reply"),
            ({"dead_letters": "in"}, "dead_letters"),
            ({"dead_letters": "a b"}, "dead_letters"),
        ):
            error = self.assertRaises(ConfigurationError, read, [{**sound, **changed}], **more)
            self.assertIn(f"bridges.0.{key}", [complaint.key for complaint in error.complaints])
        self.refused(
            "queue.type", "are needed together", [], server={"enabled": False}, queue={"type": "memory"}, brokers={}
        )
        accepted = {**sound, "acknowledge": "acceptance"}
        self.refused("bridges.0.dead_letters", "no effect", [accepted], brokers=more["brokers"])

    def test_two_with_one_name(self) -> None:
        """Two bridges with one name, or one client id, would disconnect each other."""
        self.refused("bridges.1.name", "must be unique", [BRIDGE, BRIDGE])
        other = {**self.source(client_id="openhqm/b"), "name": "c"}
        self.refused("bridges.1.from.client_id", "that of the bridge b", [BRIDGE, other])

    def test_loops(self) -> None:
        """Replies do not go where a bridge would read them again."""
        for topic in ("a/b", "a/{{ topic[1] }}"):
            self.refused("bridges.0.reply.topic", "is read by", [self.bridge(reply={"topic": topic})])
        read([self.bridge(reply={"topic": "replies/{{ topic[1] }}"}), {**self.bridge(name="c"), "reply": "none"}])
        self.refused("bridges.0.reply", "must be none", [self.bridge(reply="yes")])
        read([self.bridge(reply={"allow": ["answers/#"]})])
        self.refused("bridges.0.reply.allow", "+ beside", [self.bridge(reply={"allow": ["answers+"]})])
        self.refused("bridges.0.reply.allow", "no effect", [self.bridge(reply={"topic": "r", "allow": ["x"]})])
        self.refused("bridges.0.reply.topic", "is missing", [self.bridge(reply={})])
        self.refused("bridges.0.reply.broker", "no effect", [self.bridge(reply={"allow": ["x"], "broker": "plant"})])
        self.refused("bridges.0.reply.topic", "wildcard", [self.bridge(reply={"topic": "r/#"})])
        self.refused("bridges.0.reply.broker", "no broker", [self.bridge(reply={"topic": "r", "broker": "x"})])

    def test_contradictions(self) -> None:
        """Keys without an effect, or with a bad one, are refused."""
        self.refused("bridges.0.partition_key", "partitioning.enabled", [self.bridge(partition_key="{{ topic[1] }}")])
        for broker in ("mqtt", "rabbitmq"):
            queue = {"queue": {"type": broker}}
            self.refused("bridges.0.replay.rate", "sqlite or redis", [self.bridge(replay={"rate": 5})], **queue)
        self.refused("bridges.0.replay.rate", "0.001", [self.bridge(replay={"rate": 0})])
        self.refused("bridges.0.operation", "beside endpoint", [self.bridge(operation="x")])
        self.refused("bridges.0.acknowledge", "in order", [self.bridge(acknowledge="ending")])
        self.refused("bridges.0.path", "placeholder", [self.bridge(path="/{{ a b }}")])
        shared = {"queue": {"type": "redis"}, "server": {"workers": 2}}
        self.refused("bridges", "server.workers", [BRIDGE], **shared)
        self.refused(
            "proxy.endpoints.replies-plant", "another name", [BRIDGE], {"replies-plant": {"url": "http://localhost:1"}}
        )

    def test_order(self) -> None:
        """An order is refused where it could not be kept, and what would have no effect beside it."""
        partitioned = {"partitioning": {"enabled": True}}
        for order in ("per_key", "strict"):
            self.refused("bridges.0.order", "partitioning.enabled", [self.bridge(order=order)])
        self.refused("bridges.0.order", "needs partition_key", [self.bridge(order="per_key")], **partitioned)
        self.refused("bridges.0.order", "none", [self.bridge(order="any")])
        elsewhere = {"partitioning": {"enabled": True, "key_field": "payload.id"}}
        self.refused("bridges.0.order", "metadata.partition_key", [self.bridge(order="strict")], **elsewhere)
        for order in ("strict", "none"):
            bridge = self.bridge(order=order, partition_key="x")
            self.refused("bridges.0.partition_key", f"order: {order}", [bridge], **partitioned)
            read([self.bridge(order=order, replay={"rate": 5})], **partitioned)
        read([self.bridge(order="per_key", partition_key="{{ topic[1] }}", replay={"rate": 5})], **partitioned)
        read([self.bridge(order="none", replay={"rate": 5})])

    def test_backlogs(self) -> None:
        """What comes while an endpoint is away has a queue of its own, where a bridge has a rate for it."""

        def queues(*bridges: dict[str, Any]) -> list[tuple[str | None, int | None]]:
            lanes = read(list(bridges), {"f": ENDPOINT}).addressing().lanes()
            return [(endpoint, partition) for endpoint, _, partition in lanes if partition is not None]

        self.assertEqual(queues(BRIDGE), [])
        self.assertEqual(queues(self.bridge(replay={"rate": 5})), [("e", BACKLOG)])
        routed = {name: value for name, value in BRIDGE.items() if name != "endpoint"}
        self.assertEqual(queues({**routed, "replay": {"rate": 5}}), [("e", BACKLOG), ("f", BACKLOG)])

    def test_publishing(self) -> None:
        """An endpoint publishes or is called, to a broker and a topic that there are."""
        publish = {"broker": "plant", "topic": "lamps/{{ payload.id }}/set"}
        read([], {"lamp": {"publish": publish, "reply": {"timeout": 3}}})
        for endpoint, key, reason in (
            ({"publish": {**publish, "broker": "x"}}, "publish.broker", "no broker"),
            ({"publish": {**publish, "topic": "a/#"}}, "publish.topic", "wildcard"),
            ({"publish": {**publish, "qos": 3}}, "publish.qos", "from 0 to 2"),
            ({"publish": {**publish, "headers": {"a b": "x"}}}, "publish.headers", "not a header name"),
            ({"publish": publish, "url": "http://localhost:1"}, "url", "publishes"),
            ({"publish": publish, "reply": {"topic": "a/+"}}, "reply.topic", "wildcard"),
            ({"url": "http://localhost:1", "reply": {}}, "reply", "publish"),
            ({}, "url", "is missing"),
        ):
            self.refused(f"proxy.endpoints.lamp.{key}", reason, [], {"lamp": endpoint})
