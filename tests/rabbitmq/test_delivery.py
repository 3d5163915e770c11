"""One delivery: what of a message's headers is taken, and how often it was delivered before."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.rabbitmq.delivery import RabbitMQDelivery


class Channel:
    """pika's channel: what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.is_open = True

    def basic_ack(self, tag: int) -> None:
        self._tell("ack", tag)

    def basic_nack(self, tag: int) -> None:
        self._tell("nack", tag)

    def _tell(self, what: str, tag: int) -> None:
        if not self.is_open:
            raise ConnectionError("channel is closed")
        self.told.append((what, tag))


class DeliveryTests(SynchronousTestCase):
    """`RabbitMQDelivery`"""

    def setUp(self) -> None:
        self.channel = Channel()
        self.settled: list[RabbitMQDelivery] = []

    def deliver(self, headers: Any = None, redelivered: bool = False, reply_to: str | None = None) -> RabbitMQDelivery:
        method = SimpleNamespace(delivery_tag=7, redelivered=redelivered)
        properties = SimpleNamespace(headers=headers, reply_to=reply_to)
        return RabbitMQDelivery(self.channel, method, properties, b"body", self.settled.append)

    def test_headers(self) -> None:
        """Text and numbers are taken as text. What cannot be text is left out, and the message comes all the same."""
        found = self.deliver(
            {
                "text": "ä",
                "number": 5,
                "fraction": 0.5,
                "true": True,
                "bytes": b"\xff",
                "money": Decimal("1.10"),
                "time": datetime.now(UTC),
                "table": {"a": "b"},
                "array": ["a"],
                "nothing": None,
                b"\xff": "a name that is no text",
                "x-delivery-count": 3,
            }
        ).message
        self.assertEqual(dict(found.headers), {"text": "ä", "number": "5", "fraction": "0.5", "true": "1"})
        self.assertEqual((found.body, found.key), (b"body", None))

    def test_key(self) -> None:
        """The key comes out of its header, and is no header."""
        found = self.deliver({"openhqm-key": "k", "a": "b"}).message
        self.assertEqual((found.key, dict(found.headers)), ("k", {"a": "b"}))

    def test_reply_channel(self) -> None:
        """The reply channel comes out of AMQP's property, or out of the header where an older version put it."""
        for headers, reply_to, expected in (
            (None, "replies", {"openhqm-reply-channel": "replies"}),
            ({"a": "b"}, "replies", {"a": "b", "openhqm-reply-channel": "replies"}),
            ({"openhqm-reply-channel": "replies"}, None, {"openhqm-reply-channel": "replies"}),
        ):
            self.assertEqual(dict(self.deliver(headers, reply_to=reply_to).message.headers), expected)

    def test_redelivery_count(self) -> None:
        """What a quorum queue counts is taken. A classic queue says only that it is not the first time."""
        for headers, redelivered, expected in (
            (None, False, 0),
            ({"x-delivery-count": 0}, False, 0),
            ({"x-delivery-count": 4}, True, 4),
            (None, True, 1),
            ({"x-delivery-count": "many"}, True, 1),
        ):
            self.assertEqual(self.deliver(headers, redelivered).redelivery_count, expected)

    def test_once(self) -> None:
        """It is settled once, on its own tag."""
        for settle in ("ack", "requeue"):
            delivery = self.deliver()
            self.successResultOf(getattr(delivery, settle)())
            self.failureResultOf(delivery.ack(), NotDurable)
            self.failureResultOf(delivery.requeue(), NotDurable)
        self.assertEqual((self.channel.told, len(self.settled)), ([("ack", 7), ("nack", 7)], 2))

    def test_revoked(self) -> None:
        """Revoked, it says why, and cannot be settled; settled, it is not revoked."""
        delivery, settled = self.deliver(), self.deliver()
        self.successResultOf(settled.ack())
        for each in (delivery, settled):
            each.revoke("the cable")
        self.assertEqual(self.successResultOf(delivery.revoked), "the cable")
        self.assertNoResult(settled.revoked)
        self.failureResultOf(delivery.requeue(), NotDurable)

    def test_not_told(self) -> None:
        """Where the channel is closed and nothing has been said of that yet, settling fails, and it is out no more."""
        delivery = self.deliver()
        self.channel.is_open = False
        self.failureResultOf(delivery.ack(), NotDurable)
        self.assertEqual(self.settled, [delivery])

    def test_no_lease(self) -> None:
        """There is no lease to extend."""
        self.failureResultOf(self.deliver().extend(5.0), NotDurable)
