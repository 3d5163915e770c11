# -*- test-case-name: tests.kafka.test_foreign -*-
"""Topics of other programs, in Kafka and in what speaks its protocol: read by a consumer group, and published to."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence

from zope.interface import implementer

from openhqm.brokered.foreign import ForeignOverBroker, ForeignReceiver
from openhqm.interfaces import IBrokerDelivery, IForeignBroker, IReceiver, ISubscription, Message, Properties
from openhqm.interfaces.broker import REPLY_CHANNEL
from openhqm.kafka.broker import KafkaBroker
from openhqm.kafka.messages import CONTENT_TYPE, CORRELATION, REPLY_TOPIC
from openhqm.kafka.partitions import KafkaDelivery
from openhqm.kafka.settings import topic_fault

_TEXT = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")


@implementer(IForeignBroker)
class KafkaForeignBroker(ForeignOverBroker):
    """The topics in ``broker``. A subscription is a member of the consumer group that has its name."""

    def __init__(self, broker: KafkaBroker) -> None:
        super().__init__(broker, foreign_message, topic_fault)
        self._kafka = broker

    def subscribe(self, name: str, channels: Sequence[str], most: int, receiver: IReceiver) -> ISubscription:
        (topic,) = channels
        subscription: ISubscription = self._kafka.consume(topic, ForeignReceiver(receiver, topic, self._read), name)
        return subscription


def foreign_message(delivery: IBrokerDelivery, topic: str) -> Message:
    """The message of a delivery from ``topic``. The id of the topic, its partition and its offset say which one it is.

    Where a key or the value of a header is no text that a header can have, it is Base64. Of a header that comes twice,
    the last one counts. The headers for a reply are those of Spring's ``ReplyingKafkaTemplate``.
    """
    assert isinstance(delivery, KafkaDelivery)
    record = delivery.record
    raw = {name: value or b"" for name, value in record.headers() or ()}
    reply_to = raw.pop(REPLY_TOPIC, None) or raw.pop(REPLY_CHANNEL, None)
    content_type = raw.pop(CONTENT_TYPE, None)
    correlation = raw.pop(CORRELATION, None)
    key = record.key()
    place = f"{delivery.partition}/{delivery.offset}"
    about = Properties(
        topic=topic,
        content_type=None if content_type is None else to_text(content_type),
        message_id=f"{delivery.topic_id or topic}/{place}",
        reply_to=None if reply_to is None else to_text(reply_to),
        correlation=correlation,
        tombstone=record.value() is None,
        position=place,
    )
    headers = {name: to_text(value) for name, value in raw.items()}
    return Message(record.value() or b"", headers, None if key is None else to_text(key), about)


def to_text(content: bytes) -> str:
    """As text, or as Base64 where that is no UTF-8 or has a control character: integers and UUIDs are common."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\x00"
    return text if _TEXT.fullmatch(text) else b64encode(content).decode()
