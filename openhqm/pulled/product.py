# -*- test-case-name: tests.testing.test_directory_broker -*-
"""What the author of a pulled product writes: eight functions that connect, read and write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from openhqm.errors import NotDurable
from openhqm.interfaces import Message


class Taken(NamedTuple):
    """A message whose lease began when it was taken. ``receipt`` is what the product knows this delivery by."""

    receipt: Any
    message: Message
    redelivery_count: int | None = None


class Product(Protocol):
    """A product that is asked for messages and leases each of them, as SQS and Pub/Sub do.

    Every function may block; whatever it raises means that nothing is known of what it was asked to do.
    `ChannelMissing` says that there is no such channel.
    """

    def probe(self) -> None:
        """Raise where the product cannot be reached."""

    def publish(self, channel: str, messages: Sequence[Message]) -> Sequence[NotDurable | None]:
        """Store the messages; one outcome for each, as `IBroker.publish` has them."""

    def take(self, channel: str, most: int) -> Sequence[Taken]:
        """Lease up to ``most`` messages. It may wait a while for the first one."""

    def ack(self, receipt: Any) -> None:
        """Forget the message."""

    def requeue(self, receipt: Any) -> None:
        """End the lease: the message can be taken again."""

    def extend(self, receipt: Any, seconds: float) -> Any:
        """Let the lease end in ``seconds`` from now. Returns the receipt that is valid from now on."""

    def make(self, channel: str) -> None:
        """Make the channel if it is missing."""

    def depth(self, channel: str) -> int | None:
        """How many messages wait in the channel; None where the product does not tell. `ChannelMissing`."""
