# -*- test-case-name: tests.brokered.test_foreign -*-
"""The channels of other programs in any broker that fills the seam: `IForeignBroker` over an `IBroker`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from openhqm.brokered.leases import Leases
from openhqm.errors import NotDurable
from openhqm.interfaces import (
    Acks,
    IBroker,
    IBrokerDelivery,
    IForeignBroker,
    IReceiver,
    ISubscription,
    Message,
    Position,
    Properties,
)
from openhqm.interfaces.broker import REPLY_CHANNEL
from openhqm.runtime.deferreds import deferred

Read = Callable[[IBrokerDelivery, str], Message]
"""The message of a delivery from a channel, with its `Properties`."""


def plain(delivery: IBrokerDelivery, channel: str) -> Message:
    """A message of a product that says nothing but headers. Where it lies in its channel says which one it is.

    A message that has its `Properties` already is as it should be.
    """
    if delivery.message.properties is not None:
        return delivery.message
    message, position = delivery.message, delivery.position
    headers = dict(message.headers)
    reply_to = headers.pop(REPLY_CHANNEL, None)
    place = None if position is None else f"{position.partition}/{position.offset}"
    about = Properties(
        topic=channel,
        message_id=place,
        duplicate=True if delivery.redelivery_count else None,
        reply_to=reply_to,
        position=place,
    )
    return replace(message, headers=headers, properties=about)


def _no_fault(channel: str) -> str | None:
    return None


@implementer(IBrokerDelivery)
class _Delivery:
    """``delivery``, with the message as a bridge reads it."""

    def __init__(self, delivery: IBrokerDelivery, message: Message, leases: Leases | None = None) -> None:
        self._delivery = delivery
        self._leases = leases
        self.message = message
        self.position: Position | None = delivery.position
        self.redelivery_count: int | None = delivery.redelivery_count
        self.revoked: Deferred[str] = delivery.revoked
        self.extend = delivery.extend
        if leases is not None:
            leases.keep(delivery)

    def ack(self) -> Deferred[None]:
        return self._settled().ack()

    def requeue(self) -> Deferred[None]:
        return self._settled().requeue()

    def _settled(self) -> IBrokerDelivery:
        if self._leases is not None:
            self._leases.drop(self._delivery)
        return self._delivery


@implementer(IReceiver)
class ForeignReceiver:
    """``receiver``, with the messages from ``channel`` as ``read`` makes them, and with ``leases`` that are kept."""

    def __init__(self, receiver: IReceiver, channel: str, read: Read, leases: Leases | None = None) -> None:
        self._receiver = receiver
        self._channel = channel
        self._read = read
        self._leases = leases

    def received(self, delivery: IBrokerDelivery) -> None:
        self._receiver.received(_Delivery(delivery, self._read(delivery, self._channel), self._leases))

    def lost(self, reason: str) -> None:
        self._receiver.lost(reason)

    def dropped(self, count: int) -> None:
        self._receiver.dropped(count)


@implementer(IForeignBroker)
class ForeignOverBroker:
    """``read`` makes the message of a delivery. ``fault`` says what keeps a name from being a channel, or None.

    ``clock`` is needed where the broker's deliveries are leased: each lease is kept until the delivery is settled.
    """

    def __init__(
        self,
        broker: IBroker,
        read: Read = plain,
        fault: Callable[[str], str | None] = _no_fault,
        clock: IReactorTime | None = None,
    ) -> None:
        self._broker = broker
        self._read = read
        self.fault = fault
        self.start = broker.start
        leased = clock is not None and broker.traits.lease_seconds is not None
        self._leases = Leases(broker.traits, clock) if leased and clock is not None else None
        self.when_probed = broker.when_probed

    def stop(self) -> Deferred[None]:
        if self._leases is not None:
            self._leases.stop()
        stopping: Deferred[None] = self._broker.stop()
        return stopping

    @property
    def acks(self) -> Acks:
        """Those of the broker."""
        return self._broker.traits.acks

    @property
    def unavailable_reason(self) -> str | None:
        return self._broker.unavailable_reason

    @property
    def warnings(self) -> Sequence[str]:
        return self._broker.warnings

    def subscribe(self, name: str, channels: Sequence[str], most: int, receiver: IReceiver) -> ISubscription:
        (channel,) = channels
        reading = ForeignReceiver(receiver, channel, self._read, self._leases)
        subscription: ISubscription = self._broker.consume(channel, reading)
        return subscription

    @deferred
    async def publish(self, channel: str, message: Message) -> None:
        (outcome,) = await self._broker.publish(channel, [message])
        if outcome is not None:
            raise outcome

    def ask(self, channel: str, message: Message, answers: str | None) -> Deferred[Message]:
        return fail(NotDurable("answers cannot be waited for in this broker"))
