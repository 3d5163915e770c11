# -*- test-case-name: tests.policy.test_places -*-
"""How many callers of each tenant may hold on to something at the same time: a wait, or a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from openhqm.errors import TooManyOpen
from openhqm.policy.permissions import OTHERS

T = TypeVar("T")
Limits = Mapping[str, int | None]


class Places:
    """The places for one thing, ``what``. ``limits`` has the most by tenant, `OTHERS` for each other one; None: any
    number.
    """

    def __init__(self, what: str, limits: Limits = MappingProxyType({})) -> None:
        self._what = what
        self._limits = limits if any(limit is not None for limit in limits.values()) else {}
        self._taken: Counter[str] = Counter()

    def check(self, tenant: str | None, count: int = 1) -> None:
        """`TooManyOpen` where ``tenant`` has not so many places left. None: it is no tenant."""
        if self._limits and tenant is not None:
            limit = self._limits.get(tenant, self._limits.get(OTHERS))
            if limit is not None and self._taken[tenant] + count > limit:
                raise TooManyOpen(self._what, limit)

    def has_room(self, tenant: str | None) -> bool:
        """Whether `check` would raise nothing."""
        try:
            self.check(tenant)
        except TooManyOpen:
            return False
        return True

    def enter(self, tenant: str | None) -> None:
        """Take a place."""
        if self._limits and tenant is not None:
            self._taken[tenant] += 1

    def leave(self, tenant: str | None) -> None:
        """Give it back."""
        if self._limits and tenant is not None:
            self._taken[tenant] -= 1
            if not self._taken[tenant]:
                del self._taken[tenant]

    async def held(self, tenant: str | None, begin: Callable[[], Awaitable[T]]) -> T:
        """What ``begin`` waits for, which takes a place until then. `TooManyOpen`."""
        self.check(tenant)
        self.enter(tenant)
        try:
            return await begin()
        finally:
            self.leave(tenant)


class TenantPlaces:
    """The places of all that is limited."""

    def __init__(self, waits: Limits = MappingProxyType({}), streams: Limits = MappingProxyType({})) -> None:
        self.waits = Places("waiting calls", waits)
        self.streams = Places("open event streams", streams)


UNLIMITED = TenantPlaces()
