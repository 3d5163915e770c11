# -*- test-case-name: tests.testing.test_fake_broker -*-
"""A channel of the fake broker that keeps messages by position, and is acknowledged by prefix: Kafka, Event Hubs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from zlib import crc32

import attrs

from openhqm.interfaces import BrokerTraits, DepthKind, Message, Position
from openhqm.testing.fake_channel import Claim, Consumer, FakeChannel

PARTITIONS = 3


@attrs.define(eq=False)
class _Partition:
    """``committed`` is the offset behind the last one acknowledged, ``following`` the one to be delivered next."""

    name: str
    messages: dict[int, Message] = attrs.field(factory=dict)
    deliveries: dict[int, int] = attrs.field(factory=dict)
    claims: dict[int, Claim] = attrs.field(factory=dict)
    end: int = 0
    committed: int = 0
    following: int = 0
    owner: Consumer | None = None

    def append(self, message: Message) -> None:
        self.messages[self.end] = message
        self.end += 1

    def next_offset(self) -> int | None:
        """The offset of the next message to deliver; a purge leaves holes."""
        return next((offset for offset in range(self.following, self.end) if offset in self.messages), None)

    def release(self) -> list[Claim]:
        """Go back to what was committed. Returns the claims that end with it."""
        claims, self.claims = list(self.claims.values()), {}
        self.owner, self.following = None, self.committed
        return claims


class FakeLog(FakeChannel):
    """`PARTITIONS` partitions, shared out among the consumers: each has one owner, which changes when they do."""

    def __init__(self, name: str, traits: BrokerTraits) -> None:
        super().__init__(name, traits)
        self._partitions = {str(number): _Partition(str(number)) for number in range(PARTITIONS)}
        self._next_in_turn = count()

    def put(self, message: Message) -> None:
        keyed = self.traits.native_partitions and message.key is not None
        number = crc32((message.key or "").encode()) if keyed else next(self._next_in_turn)
        self._partitions[str(number % PARTITIONS)].append(message)

    def messages(self) -> Sequence[Message]:
        return [message for each in self._partitions.values() for message in each.messages.values()]

    def waiting(self) -> int:
        return sum(len(each.messages) - len(each.claims) for each in self._partitions.values())

    def depth(self) -> int:
        """The lag: a product that counts by positions counts what is out as well, unless it says it is exact."""
        return len(self.messages()) if self.traits.depth is DepthKind.APPROXIMATE else self.waiting()

    def purge(self) -> None:
        for each in self._partitions.values():
            each.messages = {offset: message for offset, message in each.messages.items() if offset in each.claims}

    def claims(self) -> Sequence[Claim]:
        return [claim for each in self._partitions.values() for claim in each.claims.values()]

    def acknowledge(self, claim: Claim) -> None:
        partition = self._partition_of(claim)
        partition.committed = max(partition.committed, claim.number + 1)
        for offset in [offset for offset in partition.messages if offset < partition.committed]:
            del partition.messages[offset]
            partition.deliveries.pop(offset, None)
        for offset in [offset for offset in partition.claims if offset < partition.committed]:
            partition.claims[offset].consumer.forget(partition.claims.pop(offset))
        if claim.consumer.stopped:
            self._share_out()

    def take_back(self, claims: Sequence[Claim], reason: str) -> None:
        """Go back to what was committed in the partitions of these claims."""
        revoked: list[Claim] = []
        for partition in {self._partition_of(claim).name for claim in claims}:
            revoked += self._partitions[partition].release()
        self._share_out(revoked, reason)

    def claim_next(self) -> Claim | None:
        for name, partition in self._partitions.items():
            owner, offset = partition.owner, partition.next_offset()
            if owner is None or offset is None or not owner.has_room:
                continue
            self._partitions[name] = self._partitions.pop(name)  # the next message is from another partition
            redeliveries = partition.deliveries.get(offset, 0)
            claim = self.claim(partition.messages[offset], offset, redeliveries, owner, Position(name, offset))
            partition.deliveries[offset] = redeliveries + 1
            partition.following = offset + 1
            partition.claims[offset] = claim
            return claim
        return None

    def join(self, consumer: Consumer) -> None:
        self.consumers.append(consumer)
        self._share_out()

    def leave(self, consumer: Consumer) -> None:
        """It keeps its partitions while it has deliveries out of them: only the owner of one can acknowledge there."""
        self._share_out()

    def disconnect(self, consumer: Consumer, reason: str) -> None:
        super().disconnect(consumer, reason)
        self._share_out()

    def _partition_of(self, claim: Claim) -> _Partition:
        assert claim.position is not None
        return self._partitions[claim.position.partition]

    def _share_out(self, revoked: Sequence[Claim] = (), reason: str = "the partition has another owner") -> None:
        """Give each consumer its share of the partitions, and leave to each as many of its own as it may keep.

        Then the consumers are told what was ``revoked``, before that and by it.
        """
        partitions, moved = list(self._partitions.values()), []
        for each in partitions:
            if each.owner is not None and each.owner not in self.active:
                moved += each.release()
        while self.active:
            owned = {consumer: [each for each in partitions if each.owner is consumer] for consumer in self.active}
            poorest = min(owned, key=lambda consumer: len(owned[consumer]))
            richest = max(owned, key=lambda consumer: len(owned[consumer]))
            free = next((each for each in partitions if each.owner is None), None)
            if free is None and len(owned[richest]) - len(owned[poorest]) > 1:
                free = owned[richest][-1]
                moved += free.release()
            if free is None:
                break
            free.owner = poorest
        for claim in revoked:
            claim.consumer.revoke(claim, reason)
        for claim in moved:
            claim.consumer.revoke(claim, "the partition has another owner")
        remaining = [each for each in self.consumers if each.out or not each.stopped]
        if remaining != self.consumers:
            self.consumers = remaining
            self._share_out()
        self.dispatch()
