# -*- test-case-name: tests.queue.test_contracts -*-
"""The callers of `receive` with shares: the requests of each name wait in a queue of their own, beside the first.

The queues are those of the backend, each with its own `Waiters`, which know whether there may be something. One fetch
polls those that the shares choose, all of them together, so that a backend can take from several in one step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.interfaces import IReactorTime

from openhqm.interfaces import IDelivery, IShares
from openhqm.policy.queue_names import share_of
from openhqm.queue.waiters import Fetched, Waiter, Waiters
from openhqm.runtime.deferreds import deferred


class SharedQueue:
    """The queue ``name`` and those beside it. ``open`` returns the `Waiters` of a queue by its name."""

    def __init__(self, name: str, clock: IReactorTime, open: Callable[[str], Waiters]) -> None:
        self.waiters = Waiters(name, clock, self._fetch)
        self._name = name
        self._open = open
        self._shares: IShares | None = None
        self._parts: dict[str | None, Waiters] = {}

    def receive(self, most: int, shares: IShares) -> Waiter:
        """See `IMessageQueue.receive`."""
        if shares is not self._shares:
            if self._shares is not None:
                self._shares.on_change = None
            self._shares = shares
            shares.on_change = self._changed
            self._changed()
        return self.waiters.receive(most, False)

    def _changed(self) -> None:
        """There may be more names, and others may be chosen."""
        assert self._shares is not None, "it has changed"
        for name in self._shares.names:
            if name not in self._parts:
                part = self._parts[name] = self._open(share_of(self._name, name))
                part.shared = self.waiters
        self.waiters.wake()

    def _filled(self) -> list[str | None]:
        return [name for name, part in self._parts.items() if part.may_have_more]

    @deferred
    async def _fetch(self, most: int, in_order: bool) -> Fetched:
        assert self._shares is not None, "nothing waits"
        found: list[IDelivery] = []
        taken: Counter[str | None] = Counter()
        while len(found) < most:
            chosen = self._shares.choose(self._filled(), most - len(found), taken)
            if not chosen:
                break
            for name, deliveries in (await self._poll(chosen)).items():
                taken[name] += len(deliveries)
                found += deliveries
        self._shares.charge(taken)
        return Fetched(found, more=bool(self._filled()) and len(found) == most)

    @deferred
    async def _poll(self, chosen: Mapping[str | None, int]) -> dict[str | None, Sequence[IDelivery]]:
        polled: list[Sequence[IDelivery]] = await gatherResults(
            [self._parts[name].poll(count) for name, count in chosen.items()]
        )
        return dict(zip(chosen, polled, strict=True))


class SharedQueues:
    """All shared queues of a backend."""

    def __init__(self, clock: IReactorTime, open: Callable[[str], Waiters]) -> None:
        self._clock = clock
        self._open = open
        self._queues: dict[str, SharedQueue] = {}

    def receive(self, queue: str, most: int, shares: IShares) -> Waiter:
        """See `IMessageQueue.receive`."""
        return self.of(queue).receive(most, shares)

    def of(self, queue: str) -> SharedQueue:
        """The queue of that name."""
        found = self._queues.get(queue)
        if found is None:
            found = self._queues[queue] = SharedQueue(queue, self._clock, self._open)
        return found

    def stop(self) -> Deferred[Any]:
        """Deliver nothing more; the callers of `receive` are cancelled. The parts have to work until it fires."""
        return DeferredList([queue.waiters.stop() for queue in self._queues.values()])
