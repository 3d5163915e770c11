"""What an operator can say about SQS, and what is refused with its key."""

from __future__ import annotations

from openhqm.sqs.names import queue_fault, queue_of
from openhqm.sqs.settings import SqsSettings
from tests.config.test_config import ConfigCase

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/orders"
TWO = "proxy: {enabled: true, endpoints: {a: {url: 'http://a'}, b: {url: 'http://b'}}}"


class SettingsTests(ConfigCase):
    """``queue.connection.sqs``"""

    def test_defaults(self) -> None:
        """Without a word everything is boto3's own, and queues are made; the short forms name region and queue."""
        ours = self.load("queue: {type: sqs}").queue.of(SqsSettings)
        self.assertEqual((ours.region, ours.queue_url, ours.names_begin_with), (None, None, "openhqm-"))
        ours = self.load(f"queue: {{type: sqs, sqs_region: eu-west-1, sqs_queue_url: '{URL}'}}").queue.of(SqsSettings)
        self.assertEqual((ours.region, ours.queue_url, ours.names_begin_with), ("eu-west-1", URL, None))

    def test_refused(self) -> None:
        """What does not go together, or can be no queue, is refused with its key."""
        for text, key, reason in (
            ("region: 'EU west'", "region", "us-east-1"),
            ("endpoint_url: 'sqs.amazonaws.com'", "endpoint_url", "https://"),
            ("endpoint_url: 'https://name:secret@host'", "endpoint_url", "without a password"),
            ("endpoint_url: 'https://host/path'", "endpoint_url", "without a path"),
            ("prefix: 'a.b'", "prefix", "letters, digits"),
            ("queue_url: orders", "queue_url", "https://"),
            ("queue_url: 'https://host'", "queue_url", "ACCOUNT"),
            (f"queue_url: '{URL}.fifo'", "fifo", "must be true"),
            (f"queue_url: '{URL}', fifo: true", "fifo", "must be false"),
            ("timeout_seconds: 0", "timeout_seconds", "from 0.5"),
        ):
            complaint = self.complaint(f"queue: {{type: sqs, connection: {{sqs: {{{text}}}}}}}")
            self.assertEqual(complaint.key, f"queue.connection.sqs.{key}", text)
            self.assertIn(reason, complaint.reason, text)

    def test_one_queue(self) -> None:
        """One queue that a URL names is for one endpoint: a second one, or another priority, needs a prefix."""
        one = f"queue: {{type: sqs, connection: {{sqs: {{queue_url: '{URL}'}}}}}}\n"
        complaint = self.complaint(one + TWO)
        self.assertEqual(complaint.key, "queue.connection.sqs.queue_url")
        self.assertIn("queue.connection.sqs.prefix", complaint.reason)
        complaint = self.complaint(one.replace("type: sqs,", "type: sqs, priorities: [high, normal],"))
        self.assertEqual(complaint.key, "queue.priorities")
        self.load(one.replace("queue_url", "prefix: x-, queue_url") + TWO)

    def test_names(self) -> None:
        """A dot is two dashes in SQS, so no other name may have two; and names are short."""
        self.assertEqual(queue_of("x-requests.a._high", True), "x-requests--a--_high.fifo")
        long = "x" * 60
        for name, reason in (("a--b", "stands for a dot"), (long, "80 characters")):
            complaint = self.complaint(
                f"queue: {{type: sqs}}\nproxy: {{enabled: true, endpoints: {{{name}: {{url: 'http://a'}}, x: {{url: 'http://a'}}}}}}"
            )
            self.assertIn(reason, complaint.reason)
        for name in ("orders", "orders.fifo", URL, URL + ".fifo"):
            self.assertIsNone(queue_fault(name))
        for name in ("", "a.b", "a b", "x" * 81, "https://host/", "a.fifo.fifo"):
            self.assertIsNotNone(queue_fault(name), name)
