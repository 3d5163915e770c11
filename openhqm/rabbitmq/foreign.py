# -*- test-case-name: tests.rabbitmq.test_foreign -*-
"""Messages that other programs have put into a queue of RabbitMQ, with all that AMQP says of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from openhqm.brokered.foreign import ForeignOverBroker
from openhqm.interfaces import IBrokerDelivery, Message, Properties
from openhqm.interfaces.broker import REPLY_CHANNEL
from openhqm.rabbitmq.address import queue_fault
from openhqm.rabbitmq.broker import RabbitMQBroker
from openhqm.rabbitmq.delivery import KEY, RabbitMQDelivery
from openhqm.rabbitmq.publishing import DIRECT_REPLY, Answered
from openhqm.runtime.answers import Answers, is_given_up
from openhqm.runtime.deferreds import deferred


class RabbitMQForeignBroker(ForeignOverBroker):
    """The queues and exchanges of other programs, over a broker that ``make`` makes with what takes the answers.

    An answer comes to the connection that has published the question. Where that is lost, there is none.
    """

    def __init__(self, make: Callable[[Answered], RabbitMQBroker]) -> None:
        super().__init__(make(self._answered), foreign_message, queue_fault)
        self._answers = Answers()

    def _answered(self, method: Any, properties: Any, body: bytes) -> None:
        correlation = properties.correlation_id
        about = Properties(
            content_type=properties.content_type,
            correlation=None if correlation is None else correlation.encode("utf-8", "surrogateescape"),
        )
        self._answers.received(Message(body, {}, None, about))

    @deferred
    async def ask(self, channel: str, message: Message, answers: str | None) -> Message:
        about = message.properties or Properties()
        answer = self._answers.expect(about.correlation or b"")
        try:
            about = replace(about, reply_to=DIRECT_REPLY)
            await self.publish(channel, replace(message, properties=about))
            return await answer
        finally:
            answer.addErrback(is_given_up).cancel()


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
    return replace(message, headers=headers, key=None, properties=about)
