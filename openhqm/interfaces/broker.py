# -*- test-case-name: openhqm.testing -*-
"""The thin seam: what a product does that only publishes, delivers and acknowledges messages.

An adapter connects, reads and writes. It knows nothing of requests, attempts, priorities, delays, order or endings:
those are written once above it, in `openhqm.brokered`. What a product cannot do is said in its `BrokerTraits`, and the
code above makes up for it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import attrs
import msgspec
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from openhqm.errors import NotDurable


class Acks(enum.Enum):
    """What one acknowledgement says.

    ``EACH``: this delivery, in whatever order (AMQP, SQS, Pub/Sub). ``PREFIX``: this delivery and every earlier one of
    its partition (Kafka's committed offset). ``IN_ORDER``: this delivery; each is acknowledged, in the order in which
    they were delivered (MQTT's PUBACK).
    """

    EACH = "each"
    PREFIX = "prefix"
    IN_ORDER = "in order"


class DepthKind(enum.Enum):
    """What the depth of a channel is worth."""

    EXACT = "exact"
    APPROXIMATE = "approximate"
    NONE = "none"


@attrs.frozen
class BrokerTraits:
    """What a product does, and what it does not.

    ``durable``: what a publish confirmed survives a restart of the broker. ``lease_seconds``: a delivery that is
    neither settled nor extended for so long is delivered again (None: for as long as the connection lasts).
    ``longest_lease_seconds``: extensions included (None: no limit). ``requeues``: a delivery can be handed back.
    ``counts_redeliveries``: a delivery says how often this very message was delivered before. ``keeps``: how many
    messages a channel holds (None: all that the disk takes); no more than half as many are published before they are
    begun. ``largest_message``: bytes of a body (None: no limit that matters). ``largest_batch``: how many messages
    one `IBroker.publish` should carry. ``in_order``: a channel is delivered in the order of publishing, where nothing
    is delivered again. ``native_partitions``: messages with the same key stay in order, in one channel.
    ``competing_consumers``: several subscriptions of a channel share
    its messages. ``makes_channels``: `IBroker.ensure` makes what is missing. ``most_channels``: how many there may be
    (None: no limit that matters). ``depth``: what `IBroker.depth` is worth.
    """

    durable: bool = True
    acks: Acks = Acks.EACH
    lease_seconds: float | None = None
    longest_lease_seconds: float | None = None
    requeues: bool = True
    counts_redeliveries: bool = True
    keeps: int | None = None
    largest_message: int | None = None
    largest_batch: int = 100
    in_order: bool = True
    native_partitions: bool = False
    competing_consumers: bool = True
    makes_channels: bool = True
    most_channels: int | None = None
    depth: DepthKind = DepthKind.EXACT


class ChannelMissing(NotDurable):
    """The broker has no such channel; nothing of what was asked for was done."""

    def __init__(self, channel: str) -> None:
        super().__init__(f"the broker has no channel {channel}")
        self.channel = channel


REPLY_CHANNEL = "openhqm-reply-channel"
"""The header of a message that names the channel for its reply. A product with a property for that may carry it there.
"""


class Properties(msgspec.Struct, frozen=True):
    """What a message of another program, or for one, has besides its body and its headers.

    ``topic`` is where it was published. ``message_id`` is its own: the same in every delivery of it, and known to its
    producer. ``identity``, where it has no id, is the same in every delivery, and may be given to another message after
    some minutes. ``duplicate``: whether it may have been delivered before; None: the product does not say. The answer
    goes to ``reply_to``, with ``correlation``. ``retained`` (MQTT): the broker keeps it, or has kept it, for
    subscribers to come. ``qos`` (MQTT) and ``expiry``, in seconds, are for a message that is published. ``tombstone``
    (Kafka): it has no content at all, which says that what its key stands for is no more. ``position`` is where it lies
    in its topic, for people: partition and offset. ``fault`` says why a message that came cannot be read, although the
    broker has delivered it. ``exchange`` (AMQP) is what routes a message that is published; None: to the queue itself.
    """

    topic: str = ""
    content_type: str | None = None
    message_id: str | None = None
    identity: str | None = None
    duplicate: bool | None = None
    reply_to: str | None = None
    correlation: bytes | None = None
    retained: bool = False
    qos: int = 1
    expiry: int | None = None
    tombstone: bool = False
    position: str | None = None
    fault: str | None = None
    exchange: str | None = None


class Message(msgspec.Struct, frozen=True):
    """What a broker carries: bytes, headers (text to text) and, where order matters, a key.

    ``properties``: None where it is a message between processes of OpenHQM.
    """

    body: bytes
    headers: Mapping[str, str] = {}
    key: str | None = None
    properties: Properties | None = None


class Position(msgspec.Struct, frozen=True, order=True):
    """Where a message lies in a channel that keeps its messages: a partition, and a number that only grows in it."""

    partition: str
    offset: int


class IBrokerDelivery(Interface):
    """One delivery of a message. It is acknowledged or requeued at most once.

    ``ack`` and ``requeue`` fire once the broker was told, and fail with `NotDurable` where it could not be: then the
    message is delivered again, to this subscription or another one.
    """

    message: Message = Attribute("the `Message`, as it was published")
    position: Position | None = Attribute("where it lies, where the product says; else None")
    redelivery_count: int | None = Attribute("how often it was delivered before; None where the product does not count")
    revoked: Deferred[str] = Attribute("fires with the reason once the broker may deliver it to another subscription")

    def ack() -> Deferred[None]:
        """The broker may forget it; with `Acks.PREFIX` every earlier one of its partition, too."""

    def requeue() -> Deferred[None]:
        """The broker delivers it again at once. Only where the traits say ``requeues``."""

    def extend(seconds: float) -> Deferred[None]:
        """Its lease ends in ``seconds`` from now. Only where the traits have ``lease_seconds``. `NotDurable`."""


class IReceiver(Interface):
    """What a subscription delivers to. No method may raise."""

    def received(delivery: IBrokerDelivery) -> None:
        """A message has come."""

    def lost(reason: str) -> None:
        """The channel is gone: the subscription is over, and its deliveries were revoked before this call.

        A connection that is lost is no reason: the subscription goes on with the next connection.
        """

    def dropped(count: int) -> None:
        """The product has removed so many messages before it could deliver them: they were older than it keeps any.

        The subscription goes on with those that are left. Only a product that can tell calls it.
        """


class ISubscription(Interface):
    """A subscription to one channel. It delivers nothing before `credit` was called."""

    def credit(most: int) -> None:
        """Let up to ``most`` deliveries be out at once: received, and neither acknowledged, requeued nor revoked.

        It stands until the next call. A smaller number takes nothing back; the product may need a while to heed it.
        With `Acks.PREFIX` a delivery is out until an acknowledgement reaches its position.
        """

    def stop() -> Deferred[None]:
        """Deliver nothing more. It does not fail. What was received stays out, and can be settled.

        Messages that were on their way when it was called go back to the broker.
        """


class IBroker(Interface):
    """One connection to a product. It reconnects for ever, with a pause that grows and varies.

    A channel is named by the product's own name for a queue, topic or subscription, without a prefix of ours: the
    caller has put that in front already. Nothing here waits without a bound: a broker that does not answer is a
    failure.
    """

    traits: BrokerTraits = Attribute("a `BrokerTraits`; it may become more precise once the broker was reached")
    unavailable_reason: str | None = Attribute("why a publish could not be confirmed now, or None")
    warnings: Sequence[str] = Attribute("what an operator should know although everything works")
    on_connected: list = Attribute(  # type: ignore[type-arg]
        "functions without arguments, called after each connection that was made: what lay there may be gone"
    )

    def start() -> Deferred[None]:
        """Begin to connect. It fires at once, and does not wait until that has worked. `CannotStart`."""

    def when_probed() -> Deferred[None]:
        """Fires once the first attempt to connect is over; ``unavailable_reason`` says how it went."""

    def stop() -> Deferred[None]:
        """Disconnect. What is out is delivered again, to others or after a restart. Publishes that wait fail."""

    def publish(channel: str, messages: Sequence[Message]) -> Deferred[Sequence[NotDurable | None]]:
        """Fires, within a bounded time, with one outcome a message, in their order; it never fails.

        None: the broker took responsibility. `ChannelMissing`: it has no such channel. `NotDurable`: it did not take
        it, or that is not known. Messages of one channel are published in the order of the calls.
        """

    def consume(channel: str, receiver: IReceiver) -> ISubscription:
        """Subscribe. A channel that does not exist is told to ``receiver.lost``, not raised."""

    def ensure(channel: str) -> Deferred[None]:
        """Make the channel if it is missing. `NotDurable` where that failed, or the product makes none."""

    def exists(channel: str) -> Deferred[bool]:
        """Whether there is such a channel. `NotDurable` where that cannot be told now."""

    def depth(channel: str) -> Deferred[int | None]:
        """How many messages wait in the channel and are not out. None where that cannot be told, or there is none.

        `NotDurable` where the broker did not answer.
        """
