# -*- test-case-name: tests.http1.test_guarded -*-
"""Connections to a server that a caller chose: to checked addresses only, and kept only while those hold.

A connection leads to the address that it was opened to, whatever its name resolves to later. So one that is kept is as
good as a new one where a new one could lead there as well: where that address is still among those of the name, and
each of these is still allowed. How a name resolves is known for `KNOWN_SECONDS`; after that, the next request waits for
the resolver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IHostnameResolver
from twisted.python.failure import Failure

from openhqm.errors import DestinationRefused
from openhqm.http1.upstream import Upstream
from openhqm.http1.upstream_pool import UpstreamPool
from openhqm.runtime.resolving import resolve_host

RESOLVE_SECONDS = 5.0
KNOWN_SECONDS = 5.0
OPEN_SECONDS = 60.0
"""An older connection carries no other request: a new one is checked from its beginning, with its certificate."""

Permits = Callable[[str, str], bool]
"""Whether an address may be called, given the address and the host that it was found for."""


class CheckedHost:
    """The addresses of ``name``, each of which ``permits`` allows. ``resolver`` is not asked about an address."""

    def __init__(self, reactor: Any, resolver: IHostnameResolver, permits: Permits, name: str) -> None:
        self.name = name
        self._reactor = reactor
        self._resolver = resolver
        self._permits = permits
        self._addresses: Sequence[str] = ()
        self._known_until = float("-inf")
        self._waiting: list[Deferred[Sequence[str]]] = []

    @property
    def is_known(self) -> bool:
        """Whether its addresses are known, so that `find` has not to wait."""
        return self._reactor.seconds() < self._known_until  # type: ignore[no-any-return]

    def leads_to(self, address: str) -> bool:
        """Whether ``address`` is one of those that were found last."""
        return address in self._addresses

    def find(self) -> Deferred[Sequence[str]]:
        """Fires with all addresses. `DestinationRefused`: there is none, or one that is not allowed.

        All that wait at the same time wait for one look-up.
        """
        if self.is_known:
            return succeed(self._addresses)
        waiting: Deferred[Sequence[str]] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._look_up().addCallback(self._check).addCallbacks(self._found, self._not_found)
        return waiting

    def _look_up(self) -> Deferred[list[str]]:
        if isIPAddress(self.name) or isIPv6Address(self.name):
            return succeed([self.name])
        return resolve_host(self._resolver, self._reactor, self.name, RESOLVE_SECONDS)

    def _check(self, found: list[str]) -> list[str]:
        for address in found:
            if not self._permits(address, self.name):
                raise DestinationRefused(f"the address {address} of the host is not allowed")
        return found

    def _found(self, addresses: list[str]) -> None:
        self._addresses, self._known_until = addresses, self._reactor.seconds() + KNOWN_SECONDS
        for each in self._answered():
            each.callback(addresses)

    def _not_found(self, failure: Failure) -> None:
        self._addresses = ()
        for each in self._answered():
            each.errback(failure)

    def _answered(self) -> list[Deferred[Sequence[str]]]:
        waiting, self._waiting = self._waiting, []
        return [each for each in waiting if not each.called]  # the others were cancelled


@attrs.frozen
class Kept:
    """The idle connections to all servers that one client has: ``most`` at once, also where callers name many hosts."""

    most: int
    connections: set[Upstream] = attrs.field(factory=set)


class CheckedPool(UpstreamPool):
    """Connections to the server ``host``, which ``endpoint`` opens. See `UpstreamPool` for the ``others``."""

    def __init__(self, host: CheckedHost, kept: Kept, endpoint: Any, clock: Any, **others: Any) -> None:
        super().__init__(endpoint, clock, most_idle=kept.most, **others)
        self._host = host
        self._kept = kept
        self._opened: dict[Upstream, tuple[str, float]] = {}  # its address, and when it is too old

    def take_idle(self) -> Upstream | None:
        """An idle connection that a new one would be as good as, if there is one and the host is known."""
        if not self._host.is_known:
            return None
        while (upstream := super().take_idle()) is not None:
            self._kept.connections.discard(upstream)
            address, too_old_at = self._opened[upstream]
            if self._host.leads_to(address) and self.clock.seconds() < too_old_at:
                return upstream
            upstream.close()
        return None

    def acquire(self) -> Deferred[Upstream]:
        """As `UpstreamPool.acquire`, once the host is known; it fails with `DestinationRefused`, too."""
        found: Deferred[Any] = self._host.find()
        return found.addCallbacks(self._acquire, self._refused)

    def _acquire(self, addresses: Sequence[str]) -> Deferred[Upstream]:
        return super().acquire()

    def _refused(self, failure: Failure) -> Failure:
        if failure.check(DestinationRefused):
            self.close_idle()
        return failure

    def _connected(self, upstream: Upstream) -> Upstream:
        peer = upstream.transport.getPeer().host
        self._opened[upstream] = peer, self.clock.seconds() + OPEN_SECONDS
        return super()._connected(upstream)

    def _release(self, upstream: Upstream, reusable: bool) -> None:
        kept = self._kept.connections
        kept.discard(upstream)
        if not reusable:
            self._opened.pop(upstream, None)
        elif len(kept) >= self._kept.most:
            upstream.close()
            return
        else:
            kept.add(upstream)
        super()._release(upstream, reusable)
