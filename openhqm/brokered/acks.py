# -*- test-case-name: tests.brokered.test_brokered -*-
"""When a delivery that is done with may be acknowledged, by what an acknowledgement says to the product.

``EACH``: at once. ``IN_ORDER``: after all that came before it. ``PREFIX``: as a part of the contiguous prefix of its
partition, by one acknowledgement of the last of it (the low-water mark).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from openhqm.interfaces import Acks, IBrokerDelivery

Ack = Callable[[IBrokerDelivery], None]


class AckTracker:
    """For one subscription. ``ack`` tells the broker."""

    def __init__(self, acks: Acks, ack: Ack) -> None:
        self._kind = acks
        self._ack = ack
        self._lines: dict[str, deque[IBrokerDelivery]] = {}
        self._done: set[IBrokerDelivery] = set()
        self._revoked: set[IBrokerDelivery] = set()

    @property
    def behind(self) -> int:
        """How many deliveries are done with, and wait for an earlier one before the broker is told."""
        return len(self._done)

    def arrived(self, delivery: IBrokerDelivery) -> None:
        """A delivery has come; the order of these calls is the order of the channel."""
        if self._kind is not Acks.EACH:
            self._lines.setdefault(_line(delivery), deque()).append(delivery)

    def done(self, delivery: IBrokerDelivery) -> None:
        """Nothing is left to do for it."""
        if self._kind is Acks.EACH:
            self._ack(delivery)
            return
        if delivery not in self._revoked:
            self._done.add(delivery)
            self._advance(_line(delivery))

    def revoked(self, delivery: IBrokerDelivery) -> None:
        """The broker delivers it again: it is not to be acknowledged, and holds up no other."""
        if self._kind is not Acks.EACH:
            self._done.discard(delivery)
            self._revoked.add(delivery)
            self._advance(_line(delivery))

    def _advance(self, name: str) -> None:
        line = self._lines.get(name)
        last = None
        while line and (line[0] in self._done or line[0] in self._revoked):
            delivery = line.popleft()
            if delivery in self._revoked:
                self._revoked.remove(delivery)
                continue
            self._done.remove(delivery)
            last = delivery
            if self._kind is Acks.IN_ORDER:
                self._ack(delivery)
        if last is not None and self._kind is Acks.PREFIX:
            self._ack(last)
        if not line:
            self._lines.pop(name, None)


def _line(delivery: IBrokerDelivery) -> str:
    return "" if delivery.position is None else delivery.position.partition
