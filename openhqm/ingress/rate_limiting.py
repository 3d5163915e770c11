# -*- test-case-name: tests.ingress.test_rate_limiting -*-
"""Callers that submit too often, or tenants that submit too much, are told when to come again.

The fields are those of draft-ietf-httpapi-ratelimit-headers-11.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from math import ceil
from types import MappingProxyType
from typing import Any

import attrs
from twisted.internet.interfaces import IReactorTime

from openhqm.config.limits import RateLimit
from openhqm.config.tenants import Tenant
from openhqm.http1.messages import Answer, Fields
from openhqm.ingress.answers import HTTPProblem, problem
from openhqm.policy.api_keys import Caller
from openhqm.policy.permissions import OTHERS
from openhqm.policy.rate_limits import Account, RateLimits

_NETWORK_BITS = 64
"""Of an IPv6 address: a subscriber has at least so many addresses (RFC 6177)."""


class Limit:
    """One limit: its ``name`` in the fields, what it counts, in ``unit`` where that is not requests, and what to say
    where it is reached. It holds for each caller: then ``by_address`` counts those that are not known. Or it holds for
    each tenant, and where it is that of one ``tenant``, its account is found here.
    """

    def __init__(
        self,
        name: bytes,
        limits: RateLimits,
        detail: str,
        unit: bytes = b"",
        by_address: RateLimits | None = None,
        tenant: str | None = None,
    ) -> None:
        self.name = name
        self.limits = limits
        self.detail = detail
        self.counts_bytes = bool(unit)
        self.by_address = by_address
        self.account = None if tenant is None else limits.account(tenant.encode())
        window = max(1, ceil(limits.per_seconds))
        self.policy = b'"%b";q=%d;w=%d%b' % (name, limits.requests, window, b';qu="%b"' % unit if unit else b"")


class Limited:
    """The limits of a submission. What it is told is written when the numbers in it are others than the last time: they
    are the same ones as long as a caller sends no more than is allowed.
    """

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits = tuple(limits)
        self.rows = tuple((each, each.limits, each.account, each.counts_bytes) for each in limits)
        self.told_to_others = limits[-1].limits if limits else None
        """Where this one calls ``on_taken``, others may."""
        self.owed: list[float] = []
        self.allowed: tuple[None, Fields] = None, ()
        self._policy = b"RateLimit-Policy", b", ".join(limit.policy for limit in limits)
        self._left = b", ".join(b'"%b";r=%%d;t=%%d' % limit.name for limit in limits)

    def tell(self, owed: list[float]) -> Fields:
        """The fields that tell the limits and what is left of them, where so many seconds are owed of each."""
        numbers: list[int] = []
        for limit, seconds in zip(self.limits, owed, strict=True):
            numbers += (limit.limits.left(seconds), ceil(seconds))
        return self._policy, (b"RateLimit", self._left % tuple(numbers))

    def allow(self, owed: list[float]) -> tuple[None, Fields]:
        """No refusal, and `tell`."""
        self.owed, self.allowed = owed, (None, self.tell(owed))
        return self.allowed


@attrs.frozen
class Admitted:
    """One submission of ``size`` bytes was counted before its body was read, and this was ``told``."""

    size: int
    told: Fields


@attrs.frozen
class Refused:
    """Submissions that were refused. ``fields`` are those of the answer."""

    detail: str
    fields: Fields

    def answer(self) -> Answer:
        """The 429."""
        return problem(429, self.detail, fields=self.fields)

    def error(self) -> HTTPProblem:
        """The 429, for a route."""
        return HTTPProblem(429, self.detail, self.fields)


class RateLimiter:
    """Counts submissions against the limit of each caller, ``default``, and against those of ``tenants``.

    ``refused`` is called for each refusal, with the tenant; None: it has none.
    """

    def __init__(
        self,
        default: Limit | None,
        clock: IReactorTime,
        refused: Callable[[str | None], object],
        tenants: Mapping[str, Sequence[Limit]] = MappingProxyType({}),
    ) -> None:
        self._seconds = clock.seconds
        self._refused = refused
        callers = () if default is None else (default,)
        self._without_row = Limited(callers)
        self._tenants = {name: Limited((*callers, *limits)) for name, limits in tenants.items()}
        self._others = self._tenants.get(OTHERS, self._without_row)
        self.limits = (*callers, *(limit for limits in tenants.values() for limit in limits))

    def take(
        self,
        caller: Caller | None,
        connection: Any,
        count: int = 1,
        size: int = 0,
        tenant: str | None = None,
        admitted: Admitted | None = None,
    ) -> tuple[Refused | None, Fields]:
        """The refusal of ``count`` submissions of ``size`` bytes, or None, and the fields that tell what is left.

        Where it is not known who the ``caller`` is, the address of the client has to do. ``tenant`` is on whose behalf
        they are where no caller says it. One limit that refuses them is enough, and nothing is taken then. What was
        ``admitted`` before is not counted again.
        """
        if admitted is not None:
            count, size = count - 1, size - admitted.size
            if not count and not size:
                return None, admitted.told
        if caller is not None:
            tenant = caller.tenant
        limited = self._without_row if tenant is None else self._tenants.get(tenant, self._others)
        if limited.told_to_others is None:
            return None, ()
        now = self._seconds()
        paid: list[float] = []
        for limit, limits, account, counts_bytes in limited.rows:
            if account is None and caller is None and limit.by_address is not None:
                limits, account = limit.by_address, connection.counted_as
            if account is None or account.forgotten:
                limits, account = self._account(limit, caller, connection, tenant)
            owed = limits.pay(account, size if counts_bytes else count, now)
            if owed is None:
                asked = [(each, *self._account(each, caller, connection, tenant)) for each in limited.limits]
                return self._refuse(limited, asked, len(paid), count, size, now, tenant)
            paid.append(owed)
        if limited.told_to_others.on_taken is not None:
            for limit in limited.limits:
                limits, account = self._account(limit, caller, connection, tenant)
                if limits.on_taken is not None:
                    limits.on_taken(account.name, limits.cost(size if limit.counts_bytes else count))
        return limited.allowed if paid == limited.owed else limited.allow(paid)

    def _refuse(
        self,
        limited: Limited,
        asked: Sequence[tuple[Limit, RateLimits, Account]],
        paid: int,
        count: int,
        size: int,
        now: float,
        tenant: str | None,
    ) -> tuple[Refused, Fields]:
        """The refusal of what at least one of the limits refuses, and the first ``paid`` have taken."""
        found: list[float] = []
        longest, detail = 0.0, ""
        for index, (limit, limits, account) in enumerate(asked):
            amount = size if limit.counts_bytes else count
            if index < paid:
                limits.give_back(account, amount)
            wait, owed = limits.ask(account, amount, now)
            found.append(owed)
            if wait > longest:
                longest, detail = wait, limit.detail
        self._refused(tenant)
        told = limited.tell(found)
        return Refused(detail, ((b"Retry-After", b"%d" % max(1, ceil(longest))), *told)), told

    def _account(
        self, limit: Limit, caller: Caller | None, connection: Any, tenant: str | None
    ) -> tuple[RateLimits, Account]:
        """What counts a submission."""
        if limit.account is not None:
            return limit.limits, limit.account
        if limit.by_address is None:
            return limit.limits, limit.limits.account((tenant or "").encode())
        if caller is not None:  # the key or the login, however many tokens it has
            return limit.limits, limit.limits.account(caller.name)
        account = connection.counted_as
        if account is None or account.forgotten:
            account = connection.counted_as = limit.by_address.account(client_network(connection.peer_host))
        return limit.by_address, account


@lru_cache(maxsize=4096)
def client_network(host: str) -> bytes:
    """What a client cannot leave: its IPv4 address, or the network of its IPv6 address; without one: no bytes."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return b""
    if not isinstance(address, IPv6Address):
        return address.packed
    mapped = address.ipv4_mapped
    return mapped.packed if mapped is not None else address.packed[: _NETWORK_BITS // 8]


def make_limiter(
    limit: RateLimit, tenants: Sequence[Tenant], clock: IReactorTime, refused: Callable[[str | None], object]
) -> RateLimiter | None:
    """What ``limit`` and ``tenants`` ask for; None: callers may submit as often as they like."""
    default = None if limit.requests is None else _default(limit.requests, limit)
    rows = {each.name: _row(each) for each in tenants}
    return RateLimiter(default, clock, refused, rows) if default is not None or any(rows.values()) else None


def _default(requests: int, limit: RateLimit) -> Limit:
    text = f"too many submissions: at most {requests} in {limit.per_seconds:g} s"
    by_caller, by_address = (RateLimits(requests, limit.per_seconds, limit.burst) for _ in range(2))
    return Limit(b"default", by_caller, text, by_address=by_address)


def _row(tenant: Tenant) -> list[Limit]:
    requests, size = tenant.limits.requests_per_second, tenant.limits.bytes_per_second
    name = None if tenant.name == OTHERS else tenant.name
    found = []
    if requests is not None:
        whole = max(1, round(requests))
        text = f"too many submissions of this tenant: at most {requests:g} in a second"
        found.append(Limit(b"tenant", RateLimits(whole, whole / requests), text, tenant=name))
    if size is not None:
        text = f"too much is submitted on behalf of this tenant: at most {size} bytes in a second"
        found.append(Limit(b"tenant-bytes", RateLimits(size, 1.0, owes=True), text, b"content-bytes", tenant=name))
    return found
