# -*- test-case-name: tests.testing.test_fake_broker -*-
"""What every channel of the fake broker's server does: it claims messages for consumers, and takes claims back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import attrs

from openhqm.interfaces import BrokerTraits, Message, Position


class Consumer(Protocol):
    """A subscription, as the server sees it."""

    @property
    def has_room(self) -> bool:
        """Whether its credit allows another delivery."""

    @property
    def stopped(self) -> bool:
        """Whether it takes nothing more, and only settles what it has."""

    @property
    def out(self) -> int:
        """How many deliveries it has out."""

    def seconds(self) -> float:
        """The time, by its clock."""

    def deliver(self, claim: Claim) -> None:
        """A message was claimed for it."""

    def forget(self, claim: Claim) -> None:
        """The claim was acknowledged."""

    def revoke(self, claim: Claim, reason: str) -> None:
        """The claim was taken back."""

    def lose(self, reason: str) -> None:
        """The channel is gone."""


@attrs.define(eq=False)
class Claim:
    """The server's record that a message is out. Times are in seconds of the consumer's clock."""

    message: Message
    number: int
    redeliveries: int
    consumer: Consumer
    position: Position | None = None
    lease_end: float | None = None
    lease_limit: float | None = None


class FakeChannel(ABC):
    """A channel of the server. `FakeQueue` and `FakeLog` say how messages lie in it."""

    def __init__(self, name: str, traits: BrokerTraits) -> None:
        self.name = name
        self.traits = traits
        self.consumers: list[Consumer] = []
        self._dispatching = False

    # Its messages

    @abstractmethod
    def put(self, message: Message) -> None:
        """Store it behind the others."""

    @abstractmethod
    def messages(self) -> Sequence[Message]:
        """Every message that was not acknowledged, the oldest first; what is out is among them."""

    @abstractmethod
    def waiting(self) -> int:
        """How many messages are not out."""

    def depth(self) -> int:
        """What the product tells as the depth."""
        return self.waiting()

    @abstractmethod
    def purge(self) -> None:
        """Drop every message that waits. What is out stays out."""

    @property
    def full(self) -> bool:
        """Whether the channel has as many messages waiting as the product keeps."""
        return self.traits.keeps is not None and self.waiting() >= self.traits.keeps

    # Its claims

    @abstractmethod
    def claims(self) -> Sequence[Claim]:
        """What is out."""

    @abstractmethod
    def acknowledge(self, claim: Claim) -> None:
        """Forget the message, and with `Acks.PREFIX` the earlier ones of its partition."""

    @abstractmethod
    def take_back(self, claims: Sequence[Claim], reason: str) -> None:
        """Let the messages be delivered again. Each consumer is told the reason."""

    @abstractmethod
    def claim_next(self) -> Claim | None:
        """Claim the next message for one of the consumers, where there is one with room for it."""

    def claim(
        self, message: Message, number: int, redeliveries: int, consumer: Consumer, position: Position | None = None
    ) -> Claim:
        """The claim of a message, with the lease that the product gives."""
        lease, limit, now = self.traits.lease_seconds, self.traits.longest_lease_seconds, consumer.seconds()
        return Claim(
            message,
            number,
            redeliveries,
            consumer,
            position,
            lease_end=None if lease is None else now + lease,
            lease_limit=None if lease is None or limit is None else now + limit,
        )

    # Its consumers

    @property
    def active(self) -> Sequence[Consumer]:
        """The consumers that share the messages: all of them, or the one that came first."""
        return self.consumers if self.traits.competing_consumers else self.consumers[:1]

    def join(self, consumer: Consumer) -> None:
        """Deliver to this one, too."""
        self.consumers.append(consumer)
        self.dispatch()

    def leave(self, consumer: Consumer) -> None:
        """Deliver nothing more to this one. What it has stays out."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)
        self.dispatch()

    def disconnect(self, consumer: Consumer, reason: str) -> None:
        """Its connection is gone: deliver nothing more to it, and take back what no lease keeps for it."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)
        self.take_back([each for each in self.claims() if each.consumer is consumer and each.lease_end is None], reason)
        self.dispatch()

    def expire(self, now: float) -> None:
        """Take back what has a lease that is over."""
        over = [each for each in self.claims() if each.lease_end is not None and each.lease_end <= now]
        if over:
            self.take_back(over, "the lease ran out")
            self.dispatch()

    def delete(self, reason: str) -> None:
        """Revoke what is out, and tell the consumers that the channel is gone."""
        consumers, self.consumers = self.consumers, []
        self.take_back(self.claims(), reason)
        for consumer in consumers:
            consumer.lose(reason)

    def dispatch(self) -> None:
        """Deliver what waits, as far as the credit goes.

        A consumer may call back into the server while it is told of a delivery; the loop then goes on from there.
        """
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while (claim := self.claim_next()) is not None:
                claim.consumer.deliver(claim)
        finally:
            self._dispatching = False
