"""``required`` of a queue and of a bridge is refused at start where it cannot be kept, and ``--check`` says why."""

from __future__ import annotations

from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.config.guarantees import anything_required, guarantees, refuse_in_vain
from openhqm.config.loading import load
from openhqm.config.model import Settings
from openhqm.errors import ConfigurationError
from openhqm.interfaces import QueueTraits
from tests.servers import Server

KEPT = QueueTraits(durable=True, ordered=True, atomic_settle=True)
BRIDGES = """
brokers: {plant: {type: mqtt, host: localhost}, rabbit: {type: rabbitmq}}
bridges:
  - name: telemetry
    from: {broker: plant, topics: ["a/+"]}
    partition_key: "{{ topic[1] }}"
    required: ordered_per_key
  - {name: orders, from: {broker: rabbit, queue: q}, acknowledge: ending, required: at_least_once}
partitioning: {enabled: true}
worker: {handler: echo}
"""


@attrs.define
class Queue:
    """What a queue says of itself once it was probed."""

    traits: QueueTraits = KEPT
    unavailable_reason: str | None = None


class RequiredTests(SynchronousTestCase):
    """What is required, and refused"""

    def settings(self, text: str) -> Settings:
        path = Path(self.mktemp())
        path.write_text(text)
        return load(str(path), {}, PRODUCTS)

    def refused(self, text: str, queue: Queue) -> dict[str, str]:
        """Each key that a start is refused for, with the reason."""
        settings = self.settings(text)
        self.assertTrue(anything_required(settings))
        try:
            refuse_in_vain(settings, PRODUCTS, queue)
        except ConfigurationError as error:
            return {each.key: each.reason for each in error.complaints}
        return {}

    def test_kept(self) -> None:
        """What is kept is not refused, and nothing has to wait where nothing is required."""
        self.assertEqual(self.refused(BRIDGES + "queue: {required: ordered}", Queue()), {})
        self.assertFalse(anything_required(self.settings("worker: {handler: echo}")))

    def test_lost(self) -> None:
        """A queue that loses what waits is refused for itself and for each bridge into it."""
        lost = Queue(attrs.evolve(KEPT, durable=False))
        found = self.refused(BRIDGES + "queue: {required: at_least_once}", lost)
        self.assertEqual(set(found), {"queue.required", "bridges.0.required", "bridges.1.required"})
        self.assertEqual(
            found["queue.required"],
            "at_least_once cannot be kept: what waits is lost when sqlite or the result store ends",
        )

    def test_without_a_disk(self) -> None:
        """A bridge that leaves each message in its broker keeps it although the queue is in memory."""
        text = """
queue: {type: memory}
brokers: {shop: {type: kafka, bootstrap_servers: ["localhost:9092"]}}
bridges: [{name: b, from: {broker: shop, topic: t}, acknowledge: ending, dead_letters: d, reply: none,
           required: at_least_once}]
worker: {handler: echo}
"""
        lost = Queue(attrs.evolve(KEPT, durable=False))
        self.assertEqual(self.refused(text, lost), {})
        self.assertEqual(list(self.refused(text.replace("dead_letters: d, ", ""), lost)), ["bridges.0.required"])

    def test_order_of_a_product(self) -> None:
        """Order is refused where the product of a bridge has none, and the reason names it."""
        found = self.refused(BRIDGES.replace("required: at_least_once", "required: ordered_per_key"), Queue())
        self.assertEqual(list(found), ["bridges.1.required"])
        self.assertIn("rabbitmq does not promise", found["bridges.1.required"])

    def test_products_without_order(self) -> None:
        """So it is of SQS and of Pub/Sub, whatever the queue or the subscription, and at least once is kept."""
        for broker, source in (
            ("{type: sqs, region: eu-west-1}", "queue: orders"),
            ("{type: sqs, region: eu-west-1}", "queue: orders.fifo"),
            ("{type: gcp_pubsub, project_id: my-project}", "subscription: orders"),
        ):
            text = f"""
brokers: {{shop: {broker}}}
bridges: [{{name: b, from: {{broker: shop, {source}}}, required: ordered_per_key}}]
partitioning: {{enabled: true}}
worker: {{handler: echo}}
"""
            found = self.refused(text, Queue())
            self.assertEqual(list(found), ["bridges.0.required"], source)
            self.assertIn("does not promise to deliver in the order of publishing", found["bridges.0.required"])
            self.assertEqual(self.refused(text.replace("ordered_per_key", "at_least_once"), Queue()), {})

    def test_not_known(self) -> None:
        """A product that cannot be reached keeps nothing that is known: the reason is why it cannot."""
        (reason,) = self.refused("queue: {required: at_least_once}", Queue(KEPT, "no route")).values()
        self.assertEqual(reason, "it is not known whether at_least_once can be kept: no route")

    def test_vocabulary(self) -> None:
        """What nobody can require is refused with what can be."""
        for text in (
            "queue: {required: exactly_once}",
            BRIDGES.replace("required: at_least_once", "required: ordered"),
        ):
            error = self.assertRaises(ConfigurationError, self.settings, text)
            self.assertIn("at_least_once", str(error))

    def test_lines(self) -> None:
        """``--check`` has a line about the queue and about each bridge, by its name."""
        lines = guarantees(self.settings(BRIDGES), PRODUCTS, KEPT)
        self.assertIn(
            "orders is at-least-once: rabbitmq is told that a message was received when its request has ended", lines
        )
        self.assertEqual(sum(line.startswith("telemetry is ") for line in lines), 2)


class StartTests(SynchronousTestCase):
    """The process"""

    def test_refused(self) -> None:
        """A start and a check end with one line; the check of what is kept says so."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        server = Server(directory, OPENHQM_QUEUE__TYPE="memory", OPENHQM_QUEUE__REQUIRED="at_least_once")
        for arguments in ((), ("--check",)):
            code, _, errors = server.run(*arguments)
            self.assertEqual(code, 1, arguments)
            line = (
                "queue.required: at_least_once cannot be kept: what waits is lost when memory or the result store ends"
            )
            self.assertIn(line, errors, arguments)
        server = Server(directory, OPENHQM_QUEUE__REQUIRED="at_least_once")
        code, out, errors = server.run("--check")
        self.assertEqual((code, errors), (0, ""))
        self.assertIn("the queue is at-least-once: the reply and the end of its request are one step", out)

    def test_of_a_bridge_from_kafka(self) -> None:
        """A check that refuses what a bridge requires ends, also where it has not yet begun to connect to Kafka."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        file = directory / "cfg.yaml"
        file.write_text(
            "brokers: {shop: {type: kafka, bootstrap_servers: ['127.0.0.1:1']}}\n"
            "bridges: [{name: orders, from: {broker: shop, topic: t}, required: ordered_per_key}]\n"
            "worker: {handler: echo}\n"
        )
        code, _, errors = Server(directory).run("--config", str(file), "--check")
        self.assertEqual(code, 1)
        self.assertIn("bridges.0.required: ordered_per_key cannot be kept: partitioning.enabled is false", errors)
