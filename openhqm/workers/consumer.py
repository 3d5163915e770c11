# -*- test-case-name: tests.workers.test_consumer -*-
"""The consumer of one queue: it waits for a free slot, and then asks the queue for deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import OpenHQMError
from openhqm.interfaces import IDelivery, IMessageQueue
from openhqm.policy.breaker import State
from openhqm.policy.fair_shares import FairShares, Name, Share
from openhqm.runtime.deferreds import Running, deferred
from openhqm.workers.attempt import Attempt, AttemptContext

RECEIVE_AGAIN_SECONDS = 1.0
STUCK_SECONDS = 60.0
FAILING_SECONDS = 10.0
"""A queue counts as failing for so long after `receive` has failed. After that it may just have no deliveries."""


class Consumer:
    """Works on at most ``count`` requests of the queue ``name`` at once.

    One `receive` asks for ``batch`` deliveries at most. ``lease`` is the lease of the queue in seconds: the consumer
    extends each delivery at a third of it. ``in_order``: it asks for one delivery after the other. ``shares`` are those
    of the tenants whose requests wait beside the queue; empty: it asks for the queue alone.

    A slot is free for the next request while the delivery before it is being settled (at most ``count`` of these,
    too). So settling one request and receiving another can share a transaction.
    """

    _log = Logger()

    def __init__(
        self,
        queue: IMessageQueue,
        name: str,
        context: AttemptContext,
        clock: IReactorTime,
        *,
        count: int,
        batch: int,
        in_order: bool = False,
        lease: float = 60.0,
        shares: Mapping[Name, Share] = MappingProxyType({}),
    ) -> None:
        self._queue = queue
        self._name = name
        self._context = context
        self._clock = clock
        self._extend_every = lease / 3
        self._count = self._free = count
        self._share_table = shares
        self._shares = FairShares(shares, count) if shares else None
        self._counted_as: dict[IDelivery, Name] = {}
        self._settling: set[IDelivery] = set()
        self._batch = batch
        self._in_order = in_order
        self._in_progress: dict[IDelivery, Attempt] = {}
        self._abandoned: dict[IDelivery, float] = {}
        self._slot_freed: Deferred[None] | None = None
        self._waking: Any = None
        self._gate_passable: Deferred[None] | None = None
        self._idle: list[Deferred[None]] = []
        self._stopping = False
        self._failing_since = self._failed_at = float("-inf")
        self._loop: Deferred[None] | None = None
        self._receiving: Deferred[Any] | None = None
        self._extending = LoopingCall(self._extend)
        self._extending.clock = clock

    @property
    def in_progress(self) -> int:
        """How many deliveries are neither settled nor released."""
        return len(self._in_progress)

    @property
    def unavailable_reason(self) -> str | None:
        """Why this consumer takes no requests although it should, or None."""
        now = self._clock.seconds()
        if now - self._failed_at <= FAILING_SECONDS and now - self._failing_since > STUCK_SECONDS:
            return "receiving from the queue has failed for over a minute"
        every_slot_is_stuck = self._free <= 0 and len(self._abandoned) == len(self._in_progress)
        if every_slot_is_stuck and now - max(self._abandoned.values()) > STUCK_SECONDS:
            return "every worker slot is taken by a handler that was given up over a minute ago and has not returned"
        return None

    def start(self) -> None:
        """Begin to receive."""
        self._extending.start(self._extend_every, now=False)
        self._loop = self._run()

    def exchange(
        self, context: AttemptContext, count: int, shares: Mapping[Name, Share] = MappingProxyType({})
    ) -> None:
        """From now on work with ``context``, on at most ``count`` requests at once, those of tenants by ``shares``.

        An attempt whose handler was called goes on with the context of before. One that still waits before the gate is
        released: its request is received again, and the attempt does not count.
        """
        if context is self._context and count == self._count and shares == self._share_table:
            return
        self._free += count - self._count
        self._count = count
        self._share_table = shares
        self._share_out(FairShares(shares, count) if shares else None)
        exchanged, self._context = self._context is not context, context
        self._cancel(self._receiving, self._gate_passable)
        if exchanged:
            self._release_waiting()
        self._notify()

    def adopt(self, tenant: str) -> None:
        """Work on the requests of a tenant, too, that has had a share, and has none any more."""
        if self._shares is None:
            self._share_out(FairShares({}, self._count))
            self._cancel(self._receiving)
        assert self._shares is not None, "it was made"
        self._shares.add(tenant)

    def _share_out(self, shares: FairShares | None) -> None:
        """The slots that work on requests now count for the new shares, too."""
        self._shares = shares
        for delivery, name in self._counted_as.items():
            if shares is not None:
                self._counted_as[delivery] = shares.name_of(name)
                shares.taken(self._counted_as[delivery])

    @deferred
    async def retire(self) -> None:
        """Stop receiving, because this queue is not for this process any more. Fires when no attempt is in progress.

        Attempts whose handlers were called go on, however long they take. `stop` may end that.
        """
        self._stopping = True
        self._cancel(self._receiving, self._slot_freed, self._gate_passable)
        self._release_waiting()
        if self._loop is not None:
            await self._loop
        await self._until_idle(None)
        if self._extending.running:
            self._extending.stop()

    @deferred
    async def stop(self, seconds: float) -> None:
        """Stop receiving, wait up to ``seconds`` for the attempts in progress, and release the others.

        Fires when no attempt is in progress, or at most two seconds after the others were released.
        """
        self._stopping = True
        try:
            self._cancel(self._receiving, self._slot_freed, self._gate_passable)
            if self._loop is not None:
                await self._loop
            await self._until_idle(seconds)
            # Newest first: the newest wait before the gate, which would admit them when an older attempt ends.
            for attempt in reversed(list(self._in_progress.values())):
                attempt.release()
            await self._until_idle(min(seconds, 2.0))
        finally:
            if self._extending.running:
                self._extending.stop()

    @deferred
    async def _run(self) -> None:
        while not self._stopping:
            try:
                if self._free <= 0:
                    self._slot_freed = Deferred()
                    await self._slot_freed
                most = min(self._free, self._batch)
                gate = self._context.gate
                if gate is not None:
                    self._gate_passable = gate.passable()
                    await self._gate_passable
                    if gate.state is not State.CLOSED:
                        most = 1  # the breaker's probe; the other requests stay in the queue until it has ended
                if self._shares is None:
                    self._receiving = self._queue.receive(self._name, most, in_order=self._in_order)
                else:
                    self._receiving = self._queue.receive(self._name, most, shares=self._shares)
                deliveries = await self._receiving
                self._failed_at = float("-inf")
            except CancelledError:
                continue  # where `stop` cancelled it, the condition of the loop ends it
            except Exception as error:
                self._receive_failed(error)
                await deferLater(self._clock, RECEIVE_AGAIN_SECONDS)
                continue
            for delivery in deliveries:
                self._free -= 1
                if self._shares is not None:
                    name = self._counted_as[delivery] = self._shares.name_of(delivery.request.submission.share)
                    self._shares.taken(name)
                self._work(delivery)

    def _receive_failed(self, error: Exception) -> None:
        now = self._clock.seconds()
        if now - self._failed_at > FAILING_SECONDS:
            self._failing_since = now
        self._failed_at = now
        if isinstance(error, OpenHQMError):
            self._log.error(
                "cannot receive from {queue}, which is tried again in {seconds:g} s: {error}",
                queue=self._name,
                seconds=RECEIVE_AGAIN_SECONDS,
                error=str(error),
            )
        else:  # a bug, ours or the queue's. The loop goes on: the requests in the queue have no other consumer here.
            self._log.failure("receiving from {queue} broke down", queue=self._name)

    def _work(self, delivery: IDelivery) -> None:
        attempt = self._in_progress[delivery] = Attempt(self._context, delivery, partial(self._handled, delivery))
        Running(
            attempt.run(), partial(self._attempted, delivery, attempt), partial(self._broke_down, delivery, attempt)
        )

    def _broke_down(self, delivery: IDelivery, attempt: Attempt, failure: Failure) -> None:
        """A bug of ours. The request is delivered again when the lease runs out."""
        self._log.failure("an attempt broke down", failure, correlation_id=delivery.request.correlation_id)
        self._attempted(delivery, attempt)

    def _attempted(self, delivery: IDelivery, attempt: Attempt, result: None = None) -> None:
        returned = attempt.handler_returned
        if returned is None or returned.called:
            self._over(delivery)
        else:  # The attempt is over, and its thread is not: the slot stays taken until the handler returns.
            self._abandoned[delivery] = self._clock.seconds()
            returned.addCallback(lambda nothing: self._over(delivery))

    def _over(self, delivery: IDelivery) -> None:
        self._abandoned.pop(delivery, None)
        del self._in_progress[delivery]
        if delivery in self._settling:
            self._settling.remove(delivery)
        else:
            self._free_slot(delivery)
        self._notify()

    def _handled(self, delivery: IDelivery) -> None:
        if len(self._settling) < self._count:
            self._settling.add(delivery)
            self._free_slot(delivery)
            self._notify()

    def _free_slot(self, delivery: IDelivery) -> None:
        self._free += 1
        if delivery in self._counted_as:
            name = self._counted_as.pop(delivery)
            if self._shares is not None:
                self._shares.freed(name)

    def _notify(self) -> None:
        """Wake the loop where a slot is free, and `stop` where nothing is in progress."""
        if self._free > 0 and self._slot_freed is not None and self._waking is None and not self._stopping:
            self._waking = self._clock.callLater(0, self._wake)
        if not self._in_progress:
            idle, self._idle = self._idle, []
            for each in idle:
                each.callback(None)

    def _wake(self) -> None:
        """All slots that became free in one turn of the reactor are filled together.

        One by one, a queue that has the next request at hand would have it sent before the next answer is read: each
        would wake its target by itself.
        """
        self._waking = None
        if self._free > 0 and self._slot_freed is not None:  # there may be fewer slots than before
            slot_freed, self._slot_freed = self._slot_freed, None
            if not slot_freed.called:
                slot_freed.callback(None)

    @deferred
    async def _until_idle(self, seconds: float | None) -> None:
        """Fires when no attempt is in progress, or when ``seconds`` have passed; None: it waits for the former."""
        if not self._in_progress:
            return
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)

        def give_up() -> None:
            self._idle.remove(idle)
            idle.callback(None)

        timer = None if seconds is None else self._clock.callLater(seconds, give_up)
        await idle
        if timer is not None and timer.active():
            timer.cancel()

    def _release_waiting(self) -> None:
        """Release the deliveries whose attempts wait before the gate. The newest first: see `stop`."""
        for attempt in reversed(list(self._in_progress.values())):
            attempt.release_waiting()

    def _cancel(self, *waits: Deferred[Any] | None) -> None:
        for waiting in waits:
            if waiting is not None and not waiting.called:
                waiting.cancel()

    def _extend(self) -> None:
        for delivery in self._in_progress:
            if delivery not in self._abandoned:
                delivery.extend()
