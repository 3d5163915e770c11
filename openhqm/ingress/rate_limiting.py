# -*- test-case-name: tests.ingress.test_rate_limiting -*-
"""Callers that submit too often are told when to come again.

The fields are those of draft-ietf-httpapi-ratelimit-headers-11.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any

from twisted.internet.interfaces import IReactorTime

from openhqm.config.model import RateLimit
from openhqm.http1.messages import Answer, Fields
from openhqm.ingress.answers import problem
from openhqm.policy.api_keys import Caller
from openhqm.policy.rate_limits import RateLimits, Taken

_NETWORK_BITS = 64
"""Of an IPv6 address: a subscriber has at least so many addresses (RFC 6177)."""


class RateLimiter:
    """Counts submissions against ``limits``, those of each caller by themselves."""

    def __init__(self, limits: RateLimits, clock: IReactorTime, refused: Callable[[], None]) -> None:
        self._limits = limits
        self._clock = clock
        self._refused = refused
        self.detail = f"too many submissions: at most {limits.requests} in {limits.per_seconds:g} s"
        self._policy = b'"default";q=%d;w=%d' % (limits.requests, max(1, math.ceil(limits.per_seconds)))

    def take(self, caller: Caller | None, connection: Any, count: int = 1) -> tuple[Answer | None, Fields]:
        """The refusal of ``count`` submissions, or None, and the fields that tell what is left.

        Where it is not known who the ``caller`` is, the address of the client has to do.
        """
        taken = self._limits.take(_name(caller, connection), count, self._clock.seconds())
        told = self._told(taken)
        if not taken.wait:
            return None, told
        self._refused()
        retry = (b"Retry-After", b"%d" % max(1, math.ceil(taken.wait)))
        return problem(429, self.detail, fields=(retry, *told)), told

    def _told(self, taken: Taken) -> Fields:
        left = b'"default";r=%d;t=%d' % (taken.remaining, math.ceil(taken.reset))
        return (b"RateLimit-Policy", self._policy), (b"RateLimit", left)


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


def make_limiter(limit: RateLimit, clock: IReactorTime, refused: Callable[[], None]) -> RateLimiter | None:
    """What ``limit`` asks for; None: callers may submit as often as they like."""
    if limit.requests is None:
        return None
    limits = RateLimits(limit.requests, limit.per_seconds, limit.burst)
    return RateLimiter(limits, clock, refused)
