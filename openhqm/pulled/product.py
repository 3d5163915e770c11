# -*- test-case-name: tests.testing.test_directory_broker -*-
"""What the author of a pulled product writes: eight functions that connect, read and write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred

from openhqm.errors import NotDurable
from openhqm.interfaces import Message

Outcomes = Sequence[NotDurable | None] | Deferred[Sequence[NotDurable | None]]


class Unreachable(NotDurable):
    """A call has ended as calls end where the product cannot be reached: it is looked at once whether it can."""


class Taken(NamedTuple):
    """A message whose lease began when it was taken. ``receipt`` is what the product knows this delivery by.

    ``id`` is the same in every delivery of a message, where the product has such a thing: a message that comes while it
    is out has lost its lease before.
    """

    receipt: Any
    message: Message
    redelivery_count: int | None = None
    id: str | None = None


class Product(Protocol):
    """A product that is asked for messages and leases each of them, as SQS and Pub/Sub do.

    Every function may block, or return a Deferred, as the broker's ``run`` takes them; whatever it raises means that
    nothing is known of what it was asked to do. `ChannelMissing` says that there is no such channel, `Unreachable` that
    the product may be away.
    """

    def probe(self) -> object:
        """Raise where the product cannot be reached."""

    def publish(self, channel: str, messages: Sequence[Message]) -> Outcomes:
        """Store the messages; one outcome for each, as `IBroker.publish` has them."""

    def take(self, channel: str, most: int) -> Sequence[Taken] | Deferred[Sequence[Taken]]:
        """Lease up to ``most`` messages. It may wait for the first one, as long as the broker's ``take_seconds``."""

    def ack(self, receipt: Any) -> object:
        """Forget the message."""

    def requeue(self, receipt: Any) -> object:
        """End the lease: the message can be taken again."""

    def extend(self, receipt: Any, seconds: float) -> Any:
        """Let the lease end in ``seconds`` from now. Returns the receipt that is valid from now on."""

    def make(self, channel: str) -> object:
        """Make the channel if it is missing."""

    def depth(self, channel: str) -> int | Deferred[int | None] | None:
        """How many messages wait in the channel; None where the product does not tell. `ChannelMissing`."""
