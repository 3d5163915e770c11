"""Which processes read ``queue.request_queue``, and how their bridge is set up."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS, TABLE
from openhqm.config.bridges import NONE
from openhqm.config.contradictions import contradictions
from openhqm.config.inbox import INBOX, Inbox, about_the_inbox, with_inbox
from openhqm.config.loading import load
from openhqm.config.model import Settings

TWO_KEYS = "server: {enabled: false}\nproxy: {enabled: true, default_endpoint: 'http://a.test/'}\n"
KEY = "Endpoint=sb://a.test/;SharedAccessKeyName=a;SharedAccessKey=b"
MORE = {
    "gcp_pubsub": ", connection: {gcp_pubsub: {project_id: plant-one}}",
    "custom": ", connection: {custom: {factory: 'a:b'}}",
    "azure_eventhubs": f", connection: {{azure_eventhubs: {{connection_string: '{KEY}'}}}}",
}


def settings(type: str, text: str = TWO_KEYS, queue: str = "") -> Settings:
    return load("cfg", {}, PRODUCTS, f"queue: {{type: {type}{MORE.get(type, '')}{queue}}}\n{text}".encode())


class InboxTests(SynchronousTestCase):
    """The bridge from the request queue"""

    def inbox(self, loaded: Settings, is_a_worker: bool = False) -> Any:
        made = with_inbox(loaded, PRODUCTS, is_a_worker=is_a_worker)
        self.assertEqual(list(contradictions(made, PRODUCTS)), [])
        return next((each for each in made.bridges if isinstance(each, Inbox)), None), made

    def test_two_keys(self) -> None:
        """A process without a door that sends requests on reads that channel, over the queue's own connection."""
        tried = 0
        for row in TABLE:
            if row.foreign is None or row.settings is None:
                continue
            loaded = settings(row.name, queue=", request_queue: orders")
            bridge, made = self.inbox(loaded)
            self.assertEqual(about_the_inbox(loaded, PRODUCTS), [], row.name)
            self.assertEqual(list(bridge.from_.channels(row.foreign.key)), ["orders"])
            self.assertEqual(made.brokers[INBOX].record, loaded.queue.of(row.settings))
            self.assertEqual(made.brokers[INBOX].type, row.name)
            tried += 1
        self.assertGreaterEqual(tried, 4)

    def test_no_such_channel(self) -> None:
        """Where other programs cannot put anything in, such a process would do nothing: refused, with the ways out."""
        for row in TABLE:
            if row.foreign is not None or row.name == "memory":  # which needs both halves anyway
                continue
            ((key, reason),) = about_the_inbox(settings(row.name, f"{TWO_KEYS}cache: {{}}"), PRODUCTS)
            self.assertEqual(key, "queue.type")
            for cure in ("brokers and bridges", "redis or rabbitmq", "--role worker"):
                self.assertIn(cure, reason)

    def test_others(self) -> None:
        """A process with a door, with bridges, without a proxy, or told to be a worker reads no such channel."""
        bridges = "brokers: {p: {type: rabbitmq}}\nbridges: [{name: b, from: {broker: p, queue: q}}]"
        self.assertIsNone(self.inbox(settings("rabbitmq"), is_a_worker=True)[0])
        for text in ("", "server: {enabled: false}", TWO_KEYS.replace("false", "true"), f"{TWO_KEYS}{bridges}"):
            loaded = settings("rabbitmq", text)
            self.assertIsNone(self.inbox(loaded)[0], text)
            self.assertEqual(about_the_inbox(loaded, PRODUCTS), [])

    def test_shared(self) -> None:
        """In Redis, whose queue other programs reach, each process that works reads it, and the queue replies."""
        for text in ("", TWO_KEYS, "server: {workers: 2}"):
            bridge, made = self.inbox(settings("redis", text, ", format: raw, response_queue: told"))
            self.assertEqual((bridge.from_.format, bridge.reply, bridge.answers), ("bytes", NONE, "told"))
            self.assertEqual((bridge.queue_replies, list(made.reply_brokers)), (True, []))
        self.assertIsNotNone(self.inbox(settings("redis"), is_a_worker=True)[0])

    def test_format(self) -> None:
        """The format of the queue is that of the channel, on every product that has one."""
        self.assertEqual(self.inbox(settings("rabbitmq", queue=", format: json"))[0].from_.format, "json")

    def test_names(self) -> None:
        """What the operator has named is told apart from it."""
        text = (
            f"brokers: {{{INBOX}: {{type: redis}}}}\nbridges: [{{name: {INBOX}, from: {{broker: {INBOX}, stream: s}}}}]"
        )
        found = about_the_inbox(settings("redis", text), PRODUCTS)
        self.assertEqual([key for key, _ in found], [f"brokers.{INBOX}", "bridges.0.name"])
