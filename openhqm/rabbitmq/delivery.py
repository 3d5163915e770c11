# -*- test-case-name: tests.rabbitmq.test_rabbitmq -*-
"""A message on loan from RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces.legacy import IBrokerDelivery

ATTEMPTS = "openhqm-attempts"
DUE = "openhqm-due"


@implementer(IBrokerDelivery)
class RabbitMQDelivery:
    """``over`` is called once it is said what becomes of it; ``follow`` gives back what came after it."""

    def __init__(
        self,
        channel: Any,
        method: Any,
        properties: Any,
        body: bytes,
        over: Callable[[RabbitMQDelivery], None],
        follow: Callable[[], None],
    ) -> None:
        headers = properties.headers or {}
        self.body = body
        self.attempts = _number(headers.get(ATTEMPTS))
        self.due = float(_number(headers.get(DUE))) / 1000.0
        # Counted by quorum queues; 0 for one that was never lent before.
        self.returned = _number(headers.get("x-delivery-count"))
        self.taken_back: Deferred[str] = Deferred()
        self._channel = channel
        self._tag: int = method.delivery_tag
        self._over: Callable[[RabbitMQDelivery], None] | None = over
        self._follow = follow

    def ack(self) -> Deferred[None]:
        return self._say(lambda: self._channel.basic_ack(self._tag))

    def release(self) -> Deferred[None]:
        given = self.return_alone()
        self._follow()
        return given

    def return_alone(self) -> Deferred[None]:
        """Give it back, and not what came after it."""
        return self._say(lambda: self._channel.basic_nack(self._tag, requeue=True))

    def lose(self, reason: str) -> None:
        """The channel is gone, and RabbitMQ lends it to somebody else."""
        self._over = None
        self.taken_back.callback(reason)

    def _say(self, words: Callable[[], None]) -> Deferred[None]:
        over, self._over = self._over, None
        if over is None:
            return fail(NotDurable("RabbitMQ has taken the message back"))
        over(self)
        try:
            words()
        except Exception as error:  # pika finds the channel closed before we are told
            return fail(NotDurable(f"RabbitMQ could not be told: {error}"))
        return succeed(None)


def _number(value: Any) -> int:
    """What somebody else may have written there is no number of ours."""
    return value if isinstance(value, int) and value > 0 else 0
