# -*- test-case-name: tests.rabbitmq.test_delivery,tests.rabbitmq.test_contract -*-
"""One delivery from RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import REPLY_CHANNEL, IBrokerDelivery, Message

KEY = "openhqm-key"
"""The header in which the key of a message travels: AMQP has none."""
_COUNT = "x-delivery-count"


@implementer(IBrokerDelivery)
class RabbitMQDelivery:
    """``settled`` is called once it is acknowledged or requeued; it is not, where it was revoked.

    ``amqp`` is how pika has it: the method, and the properties.
    """

    __slots__ = ("_channel", "_settled", "_tag", "amqp", "message", "position", "redelivery_count", "revoked")

    def __init__(
        self, channel: Any, method: Any, properties: Any, body: bytes, settled: Callable[[RabbitMQDelivery], None]
    ) -> None:
        headers = properties.headers or {}
        self.amqp = method, properties
        self.message = _message(body, headers, properties.reply_to)
        self.position = None
        self.redelivery_count = _redelivery_count(headers, method.redelivered)
        self.revoked: Deferred[str] = Deferred()
        self._channel = channel
        self._tag: int = method.delivery_tag
        self._settled: Callable[[RabbitMQDelivery], None] | None = settled

    def ack(self) -> Deferred[None]:
        return self._settle("basic_ack")

    def requeue(self) -> Deferred[None]:
        return self._settle("basic_nack")  # pika's default: it is requeued

    def extend(self, seconds: float) -> Deferred[None]:
        return fail(NotDurable("a delivery from RabbitMQ has no lease that could be extended"))

    def revoke(self, reason: str) -> None:
        """RabbitMQ delivers the message again, to this subscription or another one."""
        if self._settled is not None:
            self._settled = None
            self.revoked.callback(reason)

    def _settle(self, method: str) -> Deferred[None]:
        settled, self._settled = self._settled, None
        if settled is None:
            return fail(NotDurable("the delivery was settled before, or RabbitMQ has revoked it"))
        try:
            getattr(self._channel, method)(self._tag)
        except Exception as error:  # pika finds the channel closed before it says so
            return fail(NotDurable(f"RabbitMQ could not be told: {error}"))
        finally:
            settled(self)
        return succeed(None)


def _message(body: bytes, headers: Mapping[Any, Any], reply_to: str | None) -> Message:
    """What another program has put into the headers is taken where it is text or a number."""
    if not headers:
        return Message(body) if reply_to is None else Message(body, {REPLY_CHANNEL: reply_to})
    taken = {
        name: value if isinstance(value, str) else format(value, "d" if isinstance(value, int) else "")
        for name, value in headers.items()
        if isinstance(name, str) and isinstance(value, str | int | float) and name != _COUNT
    }
    if reply_to is not None:
        taken[REPLY_CHANNEL] = reply_to
    return Message(body, taken, taken.pop(KEY, None))


def _redelivery_count(headers: Mapping[Any, Any], redelivered: bool) -> int:
    """Quorum queues count (4.0 says nothing where that is 0); of other queues it is known only that it is not 0."""
    count = headers.get(_COUNT)
    return max(int(count) if isinstance(count, int) else 0, int(redelivered))
