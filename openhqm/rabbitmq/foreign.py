# -*- test-case-name: tests.rabbitmq.test_foreign -*-
"""Messages that other programs have put into a queue of RabbitMQ, with all that AMQP says of them."""

from __future__ import annotations

import attrs

from openhqm.interfaces import IBrokerDelivery, Message, Properties
from openhqm.interfaces.broker import REPLY_CHANNEL
from openhqm.rabbitmq.delivery import KEY, RabbitMQDelivery

LONGEST_NAME = 255
"""In bytes: names are short strings (AMQP 0-9-1, section 4.2.5.3)."""


def queue_fault(name: str) -> str | None:
    """What keeps ``name`` from being that of a queue, or None."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    return "is empty" if not name else f"has more than {LONGEST_NAME} bytes" if size > LONGEST_NAME else None


def foreign_message(delivery: IBrokerDelivery, queue: str) -> Message:
    """The message of a delivery: its routing key is the topic. What is redelivered may be a duplicate."""
    assert isinstance(delivery, RabbitMQDelivery)
    method, amqp = delivery.amqp
    about = Properties(
        topic=method.routing_key,
        content_type=amqp.content_type,
        message_id=amqp.message_id,
        duplicate=True if method.redelivered else None,
        reply_to=amqp.reply_to,
        correlation=None if amqp.correlation_id is None else amqp.correlation_id.encode(),
    )
    message = delivery.message
    headers = {name: value for name, value in message.headers.items() if name != REPLY_CHANNEL}
    if message.key is not None:
        headers[KEY] = message.key
    return attrs.evolve(message, headers=headers, key=None, properties=about)
