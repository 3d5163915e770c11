# -*- test-case-name: tests.testing.test_fake_broker -*-
"""A channel of the fake broker that forgets what was acknowledged, message by message: AMQP, SQS, Pub/Sub, MQTT."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import attrs

from openhqm.errors import NotDurable
from openhqm.interfaces import BrokerTraits, Message
from openhqm.testing.fake_channel import Claim, FakeChannel


@attrs.define(eq=False)
class _Stored:
    message: Message
    deliveries: int = 0


class FakeQueue(FakeChannel):
    """Messages by number, the oldest first. What is taken back keeps its number, and comes before younger ones.

    With native partitions one message of a key is out at a time.
    """

    def __init__(self, name: str, traits: BrokerTraits) -> None:
        super().__init__(name, traits)
        self._stored: dict[int, _Stored] = {}
        self._claims: dict[int, Claim] = {}
        self._numbers = count()

    def put(self, message: Message) -> None:
        self._stored[next(self._numbers)] = _Stored(message)

    def messages(self) -> Sequence[Message]:
        return [each.message for each in self._stored.values()]

    def waiting(self) -> int:
        return len(self._stored) - len(self._claims)

    def purge(self) -> None:
        self._stored = {number: each for number, each in self._stored.items() if number in self._claims}

    def claims(self) -> Sequence[Claim]:
        return list(self._claims.values())

    def acknowledge(self, claim: Claim) -> None:
        self._drop(claim)
        del self._stored[claim.number]
        claim.consumer.forget(claim)

    def take_back(self, claims: Sequence[Claim], reason: str) -> None:
        for claim in claims:
            if self._claims.get(claim.number) is claim:
                del self._claims[claim.number]
        for claim in claims:
            claim.consumer.revoke(claim, reason)

    def requeue(self, claim: Claim) -> None:
        """Let the message be delivered again, as its consumer asks."""
        self._drop(claim)
        claim.consumer.forget(claim)

    def _drop(self, claim: Claim) -> None:
        """`NotDurable`: it was taken back, and its consumer is about to be told."""
        if self._claims.get(claim.number) is not claim:
            raise NotDurable("the delivery was revoked")
        del self._claims[claim.number]

    def claim_next(self) -> Claim | None:
        consumer = next((each for each in self.active if each.has_room), None)
        number = None if consumer is None else self._oldest()
        if consumer is None or number is None:
            return None
        if self.traits.competing_consumers:  # the next message is for another one, if there is another one
            self.consumers.remove(consumer)
            self.consumers.append(consumer)
        stored = self._stored[number]
        claim = self.claim(stored.message, number, stored.deliveries, consumer)
        stored.deliveries += 1
        self._claims[number] = claim
        return claim

    def _oldest(self) -> int | None:
        """The number of the oldest message that may be delivered now."""
        blocked = {each.message.key for each in self._claims.values()} if self.traits.native_partitions else set()
        for number, stored in self._stored.items():
            if number not in self._claims and (stored.message.key is None or stored.message.key not in blocked):
                return number
        return None
