# -*- test-case-name: tests.pubsub.test_foreign -*-
"""Subscriptions of other programs, which are pulled from, and topics of theirs, which are published to."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from openhqm.brokered.foreign import ForeignOverBroker
from openhqm.interfaces import IBrokerDelivery, IForeignBroker, Message, Properties
from openhqm.interfaces.broker import REPLY_CHANNEL
from openhqm.policy.field_text import readable
from openhqm.pubsub.broker import PubSubBroker
from openhqm.pubsub.names import topic_fault
from openhqm.pulled.subscription import PulledDelivery
from openhqm.runtime.deferreds import deferred

CONTENT_TYPE, CORRELATION, REPLY_TO = "content_type", "correlation", "reply_to"
"""Attributes of a message that mean what their names say. The service has none of its own for that."""
CLOUD_EVENTS_TYPE = "content-type"
"""The same in the binding of CloudEvents for Pub/Sub."""


@implementer(IForeignBroker)
class PubSubForeignBroker(ForeignOverBroker):
    """The subscriptions and topics in ``broker``. A lease is kept until its delivery is settled."""

    def __init__(self, broker: PubSubBroker, clock: IReactorTime) -> None:
        super().__init__(broker, foreign_message, topic_fault, clock)

    @deferred
    async def publish(self, channel: str, message: Message) -> None:
        await super().publish(channel, with_attributes(message))


def foreign_message(delivery: IBrokerDelivery, subscription: str) -> Message:
    """The message of a delivery. The service's id of the message says which one it is, in every delivery of it."""
    assert isinstance(delivery, PulledDelivery)
    message = delivery.message
    attributes = dict(message.headers)
    reply_to = attributes.pop(REPLY_TO, None) or attributes.pop(REPLY_CHANNEL, None)
    correlation = attributes.pop(CORRELATION, None)
    about = Properties(
        topic=subscription,
        content_type=attributes.pop(CONTENT_TYPE, None) or attributes.pop(CLOUD_EVENTS_TYPE, None),
        message_id=delivery.id,
        duplicate=True if delivery.redelivery_count else None,
        reply_to=reply_to or None,
        correlation=None if correlation is None else correlation.encode("utf-8", "surrogatepass"),
    )
    return Message(message.body, attributes, message.key, about)


def with_attributes(message: Message) -> Message:
    """The message with all that it says besides its headers as attributes, too."""
    about = message.properties or Properties()
    attributes = {name: readable(value) for name, value in message.headers.items()}
    if about.content_type is not None:
        attributes[CONTENT_TYPE] = about.content_type
    if about.correlation is not None:
        attributes[CORRELATION] = about.correlation.decode("utf-8", "replace")
    if about.reply_to is not None:
        attributes[REPLY_TO] = about.reply_to
    return Message(message.body, attributes, message.key)
