# -*- test-case-name: tests.workers.test_consumer -*-
"""Takes what there are hands for: a permit first, then the queue is asked."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from openhqm.errors import OpenHQMError
from openhqm.interfaces import IDelivery, IMessageQueue
from openhqm.policy.breaker import State
from openhqm.runtime.deferreds import deferred
from openhqm.workers.attempt import Attempt, Attempts

AGAIN_SECONDS = 1.0
STUCK_SECONDS = 60.0
PATIENCE_SECONDS = 10.0
"""A queue that has not failed for so long is well: it may just have nothing to lend."""


class Consumer:
    """Works on at most ``count`` requests of ``name`` at once, taking up to ``batch`` in one go.

    ``lease`` is the queue's: a loan is extended at a third of it.

    While what was worked on is being settled (at most ``count``, too) the hands are free for the next: so the settling
    of one request and the lending of another share a transaction.
    """

    _log = Logger()

    def __init__(
        self,
        queue: IMessageQueue,
        name: str,
        attempts: Attempts,
        clock: IReactorTime,
        *,
        count: int,
        batch: int,
        in_order: bool = False,
        lease: float = 60.0,
    ) -> None:
        self._queue = queue
        self._name = name
        self._attempts = attempts
        self._clock = clock
        self._extend_every = lease / 3
        self._count = self._free = count
        self._settling: set[IDelivery] = set()
        self._batch = batch
        self._in_order = in_order
        self._in_hand: dict[IDelivery, Attempt] = {}
        self._given_up: dict[IDelivery, float] = {}
        self._permit: Deferred[None] | None = None
        self._passing: Deferred[None] | None = None
        self._idle: Deferred[None] | None = None
        self._stopping = False
        self._failing_since = self._failed_at = float("-inf")
        self._loop: Deferred[None] | None = None
        self._receiving: Deferred[Any] | None = None
        self._extending = LoopingCall(self._extend)
        self._extending.clock = clock

    @property
    def in_hand(self) -> int:
        """How many requests are being worked on."""
        return len(self._in_hand)

    @property
    def unavailable_reason(self) -> str | None:
        """Why no work is taken although it should be, or None."""
        now = self._clock.seconds()
        if now - self._failed_at <= PATIENCE_SECONDS and now - self._failing_since > STUCK_SECONDS:
            return "the queue has failed to lend anything for a minute"
        every_slot_is_stuck = not self._free and len(self._given_up) == len(self._in_hand)
        if every_slot_is_stuck and now - max(self._given_up.values()) > STUCK_SECONDS:
            return "every worker slot is held by a handler that does not return"
        return None

    def start(self) -> None:
        """Begin to take requests."""
        self._extending.start(self._extend_every, now=False)
        self._loop = self._run()

    @deferred
    async def stop(self, seconds: float) -> None:
        """Take nothing more; let what is in hand finish within ``seconds``, and give back what does not."""
        self._stopping = True
        try:
            for waiting in (self._receiving, self._permit, self._passing):
                if waiting is not None and not waiting.called:
                    waiting.cancel()
            if self._loop is not None:
                await self._loop
            await self._until_idle(seconds)
            # The last first: those wait before a gate, and would be let in by what the others leave.
            for attempt in reversed(list(self._in_hand.values())):
                attempt.release()
            await self._until_idle(min(seconds, 2.0))
        finally:
            if self._extending.running:
                self._extending.stop()

    @deferred
    async def _run(self) -> None:
        while not self._stopping:
            try:
                if not self._free:
                    self._permit = Deferred()
                    await self._permit
                most = min(self._free, self._batch)
                gate = self._attempts.gate
                if gate is not None:
                    self._passing = gate.passable()
                    await self._passing
                    if gate.state is not State.CLOSED:
                        most = 1  # the probe; the others wait where they are until it is back
                self._receiving = self._queue.receive(self._name, most, in_order=self._in_order)
                deliveries = await self._receiving
                self._failed_at = float("-inf")
            except CancelledError:
                continue  # the loop's condition says whether this was for us
            except Exception as error:
                self._could_not_receive(error)
                await deferLater(self._clock, AGAIN_SECONDS)
                continue
            for delivery in deliveries:
                self._free -= 1
                self._work(delivery)

    def _could_not_receive(self, error: Exception) -> None:
        now = self._clock.seconds()
        if now - self._failed_at > PATIENCE_SECONDS:
            self._failing_since = now
        self._failed_at = now
        if isinstance(error, OpenHQMError):
            self._log.error("cannot receive: {error}", error=str(error), queue=self._name)
        else:  # a bug of ours, or of the queue's: whatever lies there would wait for ever if nobody asked again
            self._log.failure("receiving from {queue} broke down", queue=self._name)

    @deferred
    async def _work(self, delivery: IDelivery) -> None:
        attempt = Attempt(self._attempts, delivery, lambda: self._handled(delivery))
        self._in_hand[delivery] = attempt
        try:
            await attempt.make()
            if attempt.finished is not None and not attempt.finished.called:
                # A thread goes on although nobody waits for its answer: its slot is not free.
                self._given_up[delivery] = self._clock.seconds()
                await attempt.finished
        except Exception:  # a bug of ours: say so, and let the lease bring the request back
            self._log.failure("an attempt broke down", correlation_id=delivery.request.correlation_id)
        finally:
            self._given_up.pop(delivery, None)
            del self._in_hand[delivery]
            if delivery in self._settling:
                self._settling.remove(delivery)
            else:
                self._free += 1
            self._let_go()

    def _handled(self, delivery: IDelivery) -> None:
        if len(self._settling) < self._count:
            self._settling.add(delivery)
            self._free += 1
            self._let_go()

    def _let_go(self) -> None:
        if self._free and self._permit is not None:
            permit, self._permit = self._permit, None
            if not permit.called:
                permit.callback(None)
        if self._idle is not None and not self._in_hand and not self._idle.called:
            self._idle.callback(None)

    @deferred
    async def _until_idle(self, seconds: float) -> None:
        if self._in_hand:
            self._idle = Deferred()
            timer = self._clock.callLater(seconds, self._let_idle_go)
            await self._idle
            if timer.active():
                timer.cancel()

    def _let_idle_go(self) -> None:
        if self._idle is not None and not self._idle.called:
            self._idle.callback(None)

    def _extend(self) -> None:
        for delivery in self._in_hand:
            if delivery not in self._given_up:
                delivery.extend()
