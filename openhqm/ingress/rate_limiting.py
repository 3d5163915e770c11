# -*- test-case-name: tests.ingress.test_rate_limiting -*-
"""Callers that submit too often, or tenants that submit too much, are told when to come again.

The fields are those of draft-ietf-httpapi-ratelimit-headers-11.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
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
from openhqm.policy.rate_limits import RateLimits, Taken

_NETWORK_BITS = 64
"""Of an IPv6 address: a subscriber has at least so many addresses (RFC 6177)."""


class Limit:
    """One limit: its ``name`` in the fields, what it counts, in ``unit`` where that is not requests, and what to say
    where it is reached.
    """

    def __init__(self, name: bytes, limits: RateLimits, detail: str, unit: bytes = b"") -> None:
        self.name = name
        self.limits = limits
        self.detail = detail
        window = max(1, math.ceil(limits.per_seconds))
        self.policy = b'"%b";q=%d;w=%d%b' % (name, limits.requests, window, b';qu="%b"' % unit if unit else b"")

    def told(self, taken: Taken) -> bytes:
        """What is left."""
        return b'"%b";r=%d;t=%d' % (self.name, taken.remaining, math.ceil(taken.reset))


@attrs.frozen
class TenantLimits:
    """The limits of a row of ``tenants``; None: it has none."""

    requests: Limit | None
    bytes: Limit | None


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
    """Counts submissions against ``limits``, those of each caller by themselves, and against those of ``tenants``.

    ``refused`` is called for each refusal, with the tenant; None: it has none.
    """

    def __init__(
        self,
        limits: RateLimits | None,
        clock: IReactorTime,
        refused: Callable[[str | None], object],
        tenants: Mapping[str, TenantLimits] = MappingProxyType({}),
    ) -> None:
        self._clock = clock
        self._refused = refused
        self._tenants = tenants
        self._default = None
        if limits is not None:
            text = f"too many submissions: at most {limits.requests} in {limits.per_seconds:g} s"
            self._default = Limit(b"default", limits, text)

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
        now = self._clock.seconds()
        asked = list(self._asked(caller, connection, count, size, tenant))
        waits = [limit.limits.wait(name, now, amount) for limit, name, amount in asked]
        longest = max(waits, default=0.0)
        if longest:
            taken = [(limit, limit.limits.look(name, now)) for limit, name, _ in asked]
        else:
            taken = [(limit, limit.limits.take(name, amount, now)) for limit, name, amount in asked]
        told: Fields = ()
        if taken:
            told = (
                (b"RateLimit-Policy", b", ".join(limit.policy for limit, _ in taken)),
                (b"RateLimit", b", ".join(limit.told(each) for limit, each in taken)),
            )
        if not longest:
            return None, told
        self._refused(tenant if caller is None else caller.tenant)
        retry = (b"Retry-After", b"%d" % max(1, math.ceil(longest)))
        return Refused(asked[waits.index(longest)][0].detail, (retry, *told)), told

    def _asked(
        self, caller: Caller | None, connection: Any, count: int, size: int, tenant: str | None
    ) -> Iterator[tuple[Limit, bytes, int]]:
        """Each limit that counts, the name that it counts under, and how much."""
        if self._default is not None:
            yield self._default, _name(caller, connection), count
        tenant = tenant if caller is None else caller.tenant
        row = None if tenant is None else self._tenants.get(tenant) or self._tenants.get(OTHERS)
        if row is not None and tenant is not None:
            if row.requests is not None:
                yield row.requests, tenant.encode(), count
            if row.bytes is not None:
                yield row.bytes, tenant.encode(), size


def _name(caller: Caller | None, connection: Any) -> bytes:
    if caller is not None:  # the key or the login, however many tokens it has
        return f"{caller.tenant} {caller.key_id}".encode()
    return client_network(getattr(connection.getPeer(), "host", "") or "")


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
    limits = None if limit.requests is None else RateLimits(limit.requests, limit.per_seconds, limit.burst)
    rows = {each.name: _row(each) for each in tenants}
    limited = any(row != TenantLimits(None, None) for row in rows.values())
    return RateLimiter(limits, clock, refused, rows) if limits is not None or limited else None


def _row(tenant: Tenant) -> TenantLimits:
    requests, size = tenant.limits.requests_per_second, tenant.limits.bytes_per_second
    often = much = None
    if requests is not None:
        whole = max(1, round(requests))
        text = f"too many submissions of this tenant: at most {requests:g} in a second"
        often = Limit(b"tenant", RateLimits(whole, whole / requests), text)
    if size is not None:
        text = f"too much is submitted on behalf of this tenant: at most {size} bytes in a second"
        much = Limit(b"tenant-bytes", RateLimits(size, 1.0, owes=True), text, b"content-bytes")
    return TenantLimits(often, much)
