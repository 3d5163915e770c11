# -*- test-case-name: tests.mqtt.test_foreign,tests.mqtt.test_contract -*-
"""One delivery of a message, whichever session it came in, and what MQTT cannot do with it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import IBrokerDelivery, Message


@implementer(IBrokerDelivery)
class MQTTDelivery:
    """``acknowledge`` is called once, unless it is revoked before; False: its connection is over."""

    position = None
    redelivery_count = None  # MQTT says that it was delivered before, and not how often

    def __init__(self, message: Message, acknowledge: Callable[[MQTTDelivery], bool]) -> None:
        self.message = message
        self.revoked: Deferred[str] = Deferred()
        self._acknowledge: Callable[[MQTTDelivery], bool] | None = acknowledge

    def ack(self) -> Deferred[None]:
        acknowledge, self._acknowledge = self._acknowledge, None
        self.revoked, revoked = Deferred(), self.revoked  # it would keep all that waits for it until a collection
        if acknowledge is None or not acknowledge(self):
            self.revoked = revoked
            return fail(NotDurable("the delivery was settled before, or the MQTT broker has revoked it"))
        return succeed(None)

    def requeue(self) -> Deferred[None]:
        return fail(NotDurable("MQTT takes no message back"))

    def extend(self, seconds: float) -> Deferred[None]:
        return fail(NotDurable("a delivery from MQTT has no lease that could be extended"))

    def revoke(self, reason: str) -> None:
        """The broker delivers it again, to the process that connects to the session next."""
        if self._acknowledge is not None:
            self._acknowledge = None
            self.revoked.callback(reason)
