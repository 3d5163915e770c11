# -*- test-case-name: tests.brokered.test_brokered -*-
"""When a delivery that is done with may be acknowledged, by what an acknowledgement says to the product.

``EACH``: at once. ``IN_ORDER``: after all that came before it. ``PREFIX``: as a part of the contiguous prefix of its
partition, by one acknowledgement of the last of it (the low-water mark).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from openhqm.interfaces import Acks, IBrokerDelivery

Ack = Callable[[IBrokerDelivery], None]
Line = OrderedDict[IBrokerDelivery, bool]
"""Deliveries of one partition in their order, and whether each is done with."""


class AckTracker:
    """For one subscription. ``ack`` tells the broker."""

    def __init__(self, acks: Acks, ack: Ack) -> None:
        self._kind = acks
        self._ack = ack
        self._lines: dict[str, Line] = {}
        self._behind = 0

    @property
    def behind(self) -> int:
        """How many deliveries are done with, and wait for an earlier one before the broker is told."""
        return self._behind

    def arrived(self, delivery: IBrokerDelivery) -> None:
        """A delivery has come; the order of these calls is the order of the channel."""
        if self._kind is Acks.EACH:
            return
        line = self._lines.setdefault(_partition(delivery), OrderedDict())
        if self._kind is Acks.PREFIX and line and _offset(delivery) <= _offset(next(reversed(line))):
            self._drop(line, next(iter(line)))  # the partition was rewound, and what came before it is over
        line[delivery] = False

    def done(self, delivery: IBrokerDelivery) -> None:
        """Nothing is left to do for it."""
        if self._kind is Acks.EACH:
            self._ack(delivery)
            return
        name = _partition(delivery)
        line = self._lines.get(name)
        if line is not None and line.get(delivery) is False:
            line[delivery] = True
            self._behind += 1
            self._advance(name, line)

    def revoked(self, delivery: IBrokerDelivery) -> None:
        """The broker delivers it again: it is not to be acknowledged.

        Where each is acknowledged in order, it holds up no other. By prefix, the acknowledgement of a later one would
        take it away: so those behind it are not acknowledged either. The broker delivers them again, too.
        """
        name = _partition(delivery)
        line = self._lines.get(name)
        if line is None or delivery not in line:
            return
        if self._kind is Acks.PREFIX:
            self._drop(line, delivery)
        else:
            self._behind -= line.pop(delivery)
        self._advance(name, line)

    def _drop(self, line: Line, first: IBrokerDelivery) -> None:
        """Forget this one and all behind it."""
        delivery = None
        while delivery is not first:
            delivery, done = line.popitem()
            self._behind -= done

    def _advance(self, name: str, line: Line) -> None:
        last = None
        while line and line[next(iter(line))]:
            last, _ = line.popitem(last=False)
            self._behind -= 1
            if self._kind is Acks.IN_ORDER:
                self._ack(last)
        if not line and self._lines.get(name) is line:  # an acknowledgement may have led to another delivery
            del self._lines[name]
        if last is not None and self._kind is Acks.PREFIX:
            self._ack(last)


def _partition(delivery: IBrokerDelivery) -> str:
    return "" if delivery.position is None else delivery.position.partition


def _offset(delivery: IBrokerDelivery) -> int:
    """Products that are acknowledged by prefix number their messages."""
    assert delivery.position is not None
    return delivery.position.offset
