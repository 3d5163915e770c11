# -*- test-case-name: tests.policy.test_fair_shares -*-
"""Whose request goes next, of those that wait in one queue on behalf of several tenants.

Start-time fair queueing (Goyal, Vin and Cheng, 1996), with one request as the unit: each tenant has a time of its own,
which goes on by one over its weight with each request, and the tenant with the earliest goes next. One whose requests
begin to wait starts at the time of the request that went last: it goes before all that have waited longer, and has no
credit from when nothing of it waited. Over any stretch in which two tenants wait, the requests of each, divided by its
weight, differ by less than one of each.

Of the slots, some may be reserved for a tenant. The others are for the tenant that goes next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from math import floor

import attrs
from zope.interface import implementer

from openhqm.interfaces import IShares

MOST_RESERVED = 0.9
"""The reserved shares of all tenants together; the rest is for the others, so that nothing starves."""
LEAST_WEIGHT = 0.01
Name = str | None
"""A tenant; None: all that have no share of their own."""


@attrs.frozen
class Share:
    """A tenant's share: the ``weight`` of its requests, and the part of the slots that is ``reserved`` for them."""

    weight: float = 1.0
    reserved: float = 0.0


EQUAL = Share()


@implementer(IShares)
class FairShares:
    """The shares of those that wait in one queue, of which a worker pool works on up to ``slots`` requests at once.

    ``shares`` has those of the tenants whose requests wait by themselves, and with None that of all others together. A
    tenant that is not in it has an equal share.
    """

    def __init__(self, shares: Mapping[Name, Share], slots: int) -> None:
        self.names: list[Name] = [None, *(name for name in shares if name is not None)]
        self.on_change: Callable[[], object] | None = None
        self._shares = dict(shares)
        self._slots = slots
        self._reserved = {
            name: count for name, share in shares.items() if (count := floor(share.reserved * slots + 1e-9))
        }
        self._in_hand: Counter[Name] = Counter()
        self._own: dict[Name, float] = {}
        self._now = 0.0

    def add(self, name: str) -> None:
        """Requests of another tenant may wait by themselves: those of one that has had a share before."""
        if name not in self.names:
            self.names.append(name)
            self._changed()

    def choose(self, waiting: Collection[Name], most: int, pending: Mapping[Name, int]) -> dict[Name, int]:
        """How many requests to take of each that has some ``waiting``: together up to ``most``; nothing is charged.

        ``pending`` are those that were taken before, and that no slot is `taken` for yet.
        """
        taken: Counter[Name] = Counter(pending)
        chosen: Counter[Name] = Counter()
        now, own = self._now, {name: self._own.get(name, 0.0) for name in waiting}
        for_all = self._slots - sum(self._reserved.values()) - self._beyond(taken) if self._reserved else most
        for _ in range(most):
            able = [name for name in waiting if for_all > 0 or self._has_reserved(name, taken)]
            if not able:
                break
            name = min(able, key=lambda each: max(own[each], now))
            now = max(own[name], now)
            own[name] = now + 1 / self._weight(name)
            for_all -= 0 if self._has_reserved(name, taken) else 1
            taken[name] += 1
            chosen[name] += 1
        return dict(chosen)

    def charge(self, taken: Mapping[Name, int]) -> None:
        """So many requests of each were taken together."""
        before = self._now
        for name, count in taken.items():
            if count:
                start = max(self._own.get(name, 0.0), before)
                self._own[name] = start + count / self._weight(name)
                self._now = max(self._now, start + (count - 1) / self._weight(name))

    def name_of(self, share: Name) -> Name:
        """What the requests that say ``share`` count as."""
        return share if share in self.names else None

    def taken(self, name: Name) -> None:
        """A slot works on a request of ``name``."""
        self._in_hand[name] += 1

    def freed(self, name: Name) -> None:
        """A slot has done with one."""
        self._in_hand[name] -= 1
        if self._reserved:
            self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _weight(self, name: Name) -> float:
        return self._shares.get(name, EQUAL).weight

    def _has_reserved(self, name: Name, taken: Mapping[Name, int]) -> bool:
        """Whether a slot is free that is reserved for it."""
        return self._in_hand[name] + taken.get(name, 0) < self._reserved.get(name, 0)

    def _beyond(self, taken: Mapping[Name, int]) -> int:
        """How many slots that are for all are taken."""
        everybody = {*self._in_hand, *taken}
        return sum(max(0, self._in_hand[each] + taken.get(each, 0) - self._reserved.get(each, 0)) for each in everybody)
