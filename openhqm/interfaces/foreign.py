# -*- test-case-name: tests.bridges -*-
"""The seam to a broker that other programs use: their channels are read and written as they are, and none is made."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from openhqm.interfaces.broker import Acks, IReceiver, ISubscription, Message


class IForeignBroker(Interface):
    """A connection to a broker that other programs use. It reconnects for ever, with a pause that grows and varies.

    Every message has `Properties`. Nothing here waits without a bound: a broker that does not answer is a failure.
    """

    acks: Acks = Attribute("what one acknowledgement says")
    unavailable_reason: str | None = Attribute("why nothing can be published now, or None")
    warnings: Sequence[str] = Attribute("what an operator should know although everything works")

    def start() -> Deferred[None]:
        """Begin to connect. It fires at once, and does not wait until that has worked."""

    def when_probed() -> Deferred[None]:
        """Fires once the first attempt to connect is over; ``unavailable_reason`` says how it went."""

    def stop() -> Deferred[None]:
        """Disconnect. What is out is delivered again after a restart. Publishes that wait fail."""

    def subscribe(name: str, channels: Sequence[str], most: int, receiver: IReceiver) -> ISubscription:
        """Receive what comes in ``channels``, at most ``most`` deliveries at once.

        ``name`` is what the broker knows the subscription by: with the same one, a process that starts again receives
        what it had not acknowledged. A channel that does not exist is told to ``receiver.lost``.
        """

    def fault(channel: str) -> str | None:
        """What keeps ``channel`` from being a channel that messages can be published into, or None."""

    def publish(channel: str, message: Message) -> Deferred[None]:
        """Fires, within a bounded time, once the broker took responsibility for the message. `NotDurable`."""

    def ask(channel: str, message: Message, answers: str | None) -> Deferred[Message]:
        """Publish the message, and fire with the one that answers it: with its correlation, in the channel ``answers``
        (None: one of our own). It waits until it is cancelled. `NotDurable` where it cannot be published.

        Only where the product can do that.
        """
