# -*- test-case-name: tests.kafka.test_messages -*-
"""A message as Kafka carries it: a value, a key, and headers from text to bytes, in which a name may come twice."""

from __future__ import annotations

from typing import Any

from openhqm.interfaces.broker import Message

CONTENT_TYPE = "content-type"
"""As in the Kafka binding of CloudEvents 1.0, section 3.2.1."""
REPLY_TOPIC, CORRELATION = "kafka_replyTopic", "kafka_correlationId"
"""What a program that asks over Kafka sets: the names are those of Spring (``KafkaHeaders``)."""


def to_record(message: Message) -> tuple[bytes, bytes | None, list[tuple[str, bytes]]]:
    """Value, key and headers, for ``Producer.produce``."""
    key = None if message.key is None else message.key.encode()
    headers = [(name, value.encode()) for name, value in message.headers.items()]
    about = message.properties
    if about is not None:
        if about.content_type is not None:
            headers.append((CONTENT_TYPE, about.content_type.encode()))
        if about.correlation is not None:
            headers.append((CORRELATION, about.correlation))
        if about.reply_to is not None:
            headers.append((REPLY_TOPIC, about.reply_to.encode()))
    return message.body, key, headers


def from_record(record: Any) -> Message:
    """The message in a ``confluent_kafka.Message``.

    Another program may write what is no text, and no value at all (a tombstone). Bytes of a key or header that are not
    UTF-8 are replaced; of a header that comes twice, the last one counts; no value is an empty body.
    """
    key = record.key()
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers() or ()}
    return Message(record.value() or b"", headers, None if key is None else key.decode(errors="replace"))
