# -*- test-case-name: tests.rabbitmq.test_losses -*-
"""Noticing that a queue is gone with what was in it, or everything: nothing is made anew as if it had been empty.

Where books are kept a queue is made here alone, once it is known what of it was lost. It is bound to an exchange of
ours, over which everything is published. Who deletes the queue deletes the binding with it, so the next message is
returned, also where a worker without books has made the queue anew at once. A RabbitMQ that has lost its data does not
even have the exchange.

One process at a time finds out, and the binding comes last: whoever is killed on the way leaves the same to be found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredLock, fail
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.interfaces.legacy import OnLost
from openhqm.rabbitmq.publishing import Returned
from openhqm.rabbitmq.queues import queue_of_lane
from openhqm.rabbitmq.topology import Topology
from openhqm.runtime.deferreds import shielded

T = TypeVar("T")

EXCHANGE = "accepted"
CLAIM = "lost!found"
RETRY_SECONDS = 0.1
MOST_WAITING = 1000
"""For one lane. Each has its message with it."""


class Losses:
    """``topology`` is that of the connection that publishes. Nobody waits for longer than ``seconds``. ``alone``: no
    other process has books, and so none makes lanes here.
    """

    def __init__(
        self, topology: Topology, prefix: str, reactor: Any, seconds: float, on_lost: OnLost, alone: bool
    ) -> None:
        self.exchange = prefix + EXCHANGE
        self._stands_for = partial(queue_of_lane, prefix)
        self._topology = topology
        self._reactor = reactor
        self._seconds = seconds
        self._on_lost = on_lost
        self._alone = alone
        self._making: dict[str, deque[Deferred[None]]] = {}
        self._all_new = False  # everything was lost, or there never was anything; and since then
        self._made: set[str] = set()  # these lanes were made
        self._one_by_one = DeferredLock()
        self._asking: set[Deferred[None]] = set()

    async def look(self) -> None:
        """On a new connection, before anything is published: see whether everything was lost. `NotDurable`."""
        self._all_new = False
        self._made.clear()
        if await self._topology.has_exchange(self.exchange):
            return

        async def begin_anew() -> None:
            if not await self._topology.has_exchange(self.exchange):
                await self._on_lost(None, None)
                await self._topology.make_exchange(self.exchange)
                self._all_new = self._alone  # another one would have made lanes, and put requests into them

        await self._claimed(begin_anew)

    def down(self) -> None:
        """There is no connection: nobody waits any longer."""
        for asking in list(self._asking):
            asking.cancel()

    def make(self, lane: str) -> Deferred[None]:
        """There is no such lane: make it. `NotDurable`."""
        made = shielded(self._make(lane, partial(self._topology.has_lane, lane)))
        return self._in_time(made.addCallback(lambda was_there: None))

    def publish_anew(self, lane: str, publish: Callable[[], Deferred[None]]) -> Deferred[None]:
        """A message for the lane was returned: make it, and ``publish`` once more. `NotDurable`.

        The first one finds out, and all that come meanwhile wait. Who gives up was told that it is not published, so
        it is not; unless it has been by then.
        """

        async def published() -> bool:
            try:
                await publish()
            except Returned:
                return False
            return True

        waiting = self._making.get(lane)
        if waiting is None:
            first = shielded(self._make(lane, published))
            return self._in_time(first.addCallback(lambda done: None if done else publish()))
        if len(waiting) >= MOST_WAITING:
            return fail(NotDurable("more is waiting for a queue that is gone than can be kept", retry_after=1))
        made: Deferred[None] = Deferred(waiting.remove)
        waiting.append(made)
        return self._in_time(made.addCallback(lambda _: publish()))

    def _in_time(self, done: Deferred[None]) -> Deferred[None]:
        """Whoever waits gives up in time; what was begun for all goes on."""

        self._asking.add(done)

        def over(result: Any) -> Any:
            self._asking.discard(done)
            if isinstance(result, Failure) and result.check(CancelledError):
                raise NotDurable("a queue in RabbitMQ is gone, and could not be made anew")
            return result

        def too_late(result: Any, seconds: float) -> Any:
            raise NotDurable(f"a queue in RabbitMQ is gone, and could not be made anew within {seconds:g} s")

        done.addBoth(over)
        return done.addTimeout(self._seconds, self._reactor, too_late)

    async def _make(self, lane: str, is_there: Callable[[], Awaitable[bool]]) -> bool:
        """Make it unless, once nobody else is at it, it is there; whether it was."""

        async def make() -> bool:
            await self._topology.make_lane(lane)
            await self._topology.bind(lane, self.exchange)
            self._made.add(lane)
            return False

        def was_never_there() -> bool:
            return self._all_new and lane not in self._made

        async def find_out() -> bool:
            if was_never_there():  # that was found out meanwhile
                return await make()
            if await is_there():
                return True  # another process was quicker
            await self._on_lost(*self._stands_for(lane))
            return await make()

        waiting = self._making.setdefault(lane, deque())
        try:
            if was_never_there():
                return await make()
            self._topology.forget(lane)  # who consumed from it is to be told that it is gone, from now on
            return await self._claimed(find_out)
        finally:
            if self._making.get(lane) is waiting:
                del self._making[lane]
            while waiting:
                waiting.popleft().callback(None)

    async def _claimed(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it while nobody else does anything of the kind, in whichever process."""
        await self._one_by_one.acquire()
        try:
            await self._claim()
            try:
                return await work()
            finally:
                await self._topology.release(CLAIM)
        finally:
            self._one_by_one.release()

    async def _claim(self) -> None:
        until = self._reactor.seconds() + self._seconds
        while not await self._try_to_claim():
            if self._reactor.seconds() >= until:
                raise NotDurable("another process is finding out what RabbitMQ has lost")
            await self._topology.pause(RETRY_SECONDS)

    async def _try_to_claim(self) -> bool:
        try:
            return await self._topology.claim(CLAIM)
        except NotDurable:
            await self._topology.release(CLAIM)  # RabbitMQ may yet do what it did not answer; then it does this, too
            raise
