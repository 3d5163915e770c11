# -*- test-case-name: tests.queue.test_contracts -*-
"""The queue in memory: the same semantics as every other, and gone with the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import count
from typing import cast

from msgspec.structs import replace
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from openhqm.codec import request_size, size_with
from openhqm.errors import NotDurable, QueueFull
from openhqm.interfaces import IDelivery, IMessageQueue, IShares, QueueTraits
from openhqm.memory.children import Children
from openhqm.memory.coalescing import CoalesceKeys
from openhqm.memory.dead_letters import DeadLetters
from openhqm.memory.local_queue import LocalQueue, Message
from openhqm.memory.results import MemoryResults
from openhqm.messages import (
    Acceptance,
    Child,
    DeadLetter,
    Depth,
    IdempotencyClaim,
    Load,
    Priority,
    Request,
    Submission,
    Waiting,
)
from openhqm.policy.ids import CorrelationIds
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.policy.queue_names import priority_of, queue_of
from openhqm.policy.redrive import redriven
from openhqm.policy.tags import logged_tags
from openhqm.queue.endings import dropped, expired
from openhqm.queue.limits import LOWERED, accept_within, no_repeat, tell_dropped, tell_expired
from openhqm.queue.sharing import SharedQueues
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.timer_queue import TimerQueue

TRAITS = QueueTraits(durable=False, ordered=True, atomic_settle=True)
MOST_REQUESTS = 100_000
MOST_ENDED = 1000
NEVER = float("inf")


@implementer(IMessageQueue)
class MemoryQueue:
    """Queues in memory, and ``results`` for the records beside them.

    A delivery that is not extended for ``lease`` seconds is lost, and its request delivered again.
    """

    traits = TRAITS
    together = staticmethod(nullcontext)
    unavailable_reason: str | None = None
    warnings: Sequence[str] = ()

    def __init__(
        self,
        results: MemoryResults,
        clock: IReactorTime,
        ids: CorrelationIds,
        *,
        requests: str,
        dead_letters: str,
        lease: float = 60.0,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self._results = results
        self._clock = clock
        self._ids = ids
        self._requests = requests
        self._dead_letters = dead_letters
        self._lease = lease
        self._timers = TimerQueue(clock)
        self._letters = DeadLetters(clock, limits)
        self._coalescing = CoalesceKeys(results, self._timers)
        self._keys = count(1)
        self._limits = limits
        self._sizes: dict[int, int] = {}  # of what has not ended
        self._bytes = 0
        self._looks_at = NEVER
        self._queues: dict[str, LocalQueue] = {}
        self._shared = SharedQueues(clock, lambda name: self._queue(name).waiters)
        self._claims = results.claims
        self._children = Children(clock, ids, self._let_go, results.note_ending, results.note_step)
        results.on_ending.append(self._ended)

    def start(self) -> Deferred[None]:
        return succeed(None)

    @deferred
    async def stop(self) -> None:
        self._timers.stop()
        await self._shared.stop()
        await gatherResults([queue.stop() for queue in self._queues.values()])

    def accept(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Deferred[Acceptance]:
        accept = partial(maybeDeferred, self._accept, submission, claim, follow_ups, children)
        if not self._limits.any:
            return cast(Deferred[Acceptance], accept())
        return accept_within(self._limits, size_with(submission, children), accept)

    def limit(self, limits: Limits) -> None:
        """Other limits hold from now on."""
        self._limits = self._letters.limits = limits
        self._look_at(self._clock.seconds())

    def load(self) -> Deferred[Load | None]:
        return succeed(self._load() if self._limits.any else None)

    def _load(self) -> Load:
        return Load(len(self._sizes), self._bytes)

    def _refusal(self, size: int) -> QueueFull | None:
        """Why there is no room for ``size`` bytes, or None. Where the limits say so, what waited longest is dropped."""
        while (refusal := self._limits.refusal(self._load(), size)) is not None and self._limits.drop_oldest:
            if self._limits.excess(self._load(), 1, size) > MOST_ENDED or not self._drop_oldest(refusal.reason):
                break
        return refusal

    def _drop_oldest(self, reason: str) -> bool:
        """End what has waited longest; False: nothing waits."""
        oldest = self._oldest()
        if oldest is not None:
            _, key = oldest
            self._results.note_ending(key, dropped(self._ids.issue(key), self._clock.seconds()))
            tell_dropped(1, reason)
        return oldest is not None

    def _oldest(self) -> tuple[float, int] | None:
        found = [each for queue in self._queues.values() if (each := queue.oldest()) is not None]
        return min(found, default=None)

    def _waits(self, since: float) -> None:
        """A request waits for its first attempt, and maybe not for ever."""
        if self._limits.age_seconds is not None:
            self._look_at(since + self._limits.age_seconds)

    def _look_at(self, due: float) -> None:
        if due < self._looks_at:
            self._looks_at = due
            self._timers.at(due, self._end_what_waits)

    def _end_what_waits(self) -> None:
        """End what has waited for too long, and what is too much since the limits have changed, in portions."""
        self._looks_at = NEVER
        excess = self._limits.excess(self._load()) if self._limits.drop_oldest else 0
        for _ in range(min(excess, MOST_ENDED)):
            if not self._drop_oldest(LOWERED):
                break
        else:
            if excess > MOST_ENDED:
                self._look_at(self._clock.seconds() + 0.01)
        now, age = self._clock.seconds(), self._limits.age_seconds
        count = 0
        while age is not None and (oldest := self._oldest()) is not None:
            since, key = oldest
            if since + age > now or count == MOST_ENDED:
                self._look_at(max(since + age, now + 0.01))
                break
            self._results.note_ending(key, expired(self._ids.issue(key), now, age))
            count += 1
        tell_expired(count, age or 0.0)

    def _count(self, key: int, request: Request) -> None:
        size = request_size(request.submission)
        self._bytes += size - self._sizes.get(key, 0)
        self._sizes[key] = size

    def _accept(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission],
        children: Sequence[Child],
    ) -> Acceptance | QueueFull:
        if claim is not None and (first := self._claims.find(claim)) is not None:
            return first
        if claim is not None and claim.repeats_only:
            raise no_repeat()
        if len(self._results) >= MOST_REQUESTS:
            raise NotDurable(f"the memory queue holds {MOST_REQUESTS} requests and takes no more")
        refusal = self._refusal(size_with(submission, children)) if self._limits.any else None
        if refusal is not None:
            return refusal
        return self._take(submission, claim, follow_ups, children)

    def _take(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None = None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Acceptance:
        now = self._clock.seconds()
        key = next(self._keys)
        if (coalescing := submission.coalescing) is not None:
            submission = replace(submission, not_before=self._coalescing.due(coalescing, now))
        request = Request(self._ids.issue(key), now, submission)
        self._count(key, request)
        self._results.note_request(key, now, request.deadline, submission.tenant, logged_tags(submission))
        held = tuple(self._hold(key, follow_up, now) for follow_up in follow_ups)
        acceptance = Acceptance(request.correlation_id, now, follow_ups=held)
        if claim is not None:
            self._claims.take(claim, acceptance)
        if children:
            self._results.children = self._children
            self._children.add(key, request, [(self._keep(each.submission, now), each) for each in children])
            return acceptance
        message = Message(key, request, priority_of(submission), now, max(submission.not_before or now, now))
        self._put(message)
        if coalescing is not None:
            self._coalescing.take(coalescing, message)
        return acceptance

    def _keep(self, submission: Submission, now: float) -> int:
        """Record a request that is held back; its key."""
        key = next(self._keys)
        self._results.note_request(key, now, None, submission.tenant, logged_tags(submission))
        self._count(key, Request(self._ids.issue(key), now, submission))
        return key

    def _hold(self, parent: int, submission: Submission, now: float) -> str:
        """Hold a follow-up back until its parent has ended; its id."""
        key = self._keep(submission, now)
        self._results.note_held(
            parent, lambda reply: self._let_go(key, replace(submission, parent_reply=reply, not_before=None))
        )
        return self._ids.issue(key)

    def _let_go(self, key: int, submission: Submission, due: float | None = None) -> None:
        """What was held back is a request of this time, and is delivered from ``due`` on (None: at once)."""
        if self._results.has_ended(key):
            return
        now = self._clock.seconds()
        request = Request(self._ids.issue(key), now, submission)
        self._results.note_due(key, now, request.deadline)
        self._count(key, request)
        self._put(Message(key, request, priority_of(submission), now, now if due is None else due))

    def _put(self, message: Message) -> None:
        self._queue(queue_of(self._requests, message.request.submission)).put(message, message.since)

    def receive(
        self, queue: str, most: int, *, in_order: bool = False, shares: IShares | None = None
    ) -> Deferred[Sequence[IDelivery]]:
        if shares is not None:
            return self._shared.receive(queue, most, shares)
        return self._queue(queue).receive(most, in_order)

    def queues(self) -> Deferred[Sequence[str]]:
        return succeed(list(self._queues))

    def waiting(self, queue: str) -> Deferred[Mapping[Priority, Waiting]]:
        return succeed(self._queue(queue).waiting())

    def depth(self, queue: str) -> Deferred[Depth]:
        return succeed(self._letters.depth() if queue == self._dead_letters else self._queue(queue).depth())

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return succeed(self._letters.listed(after, most))

    def reject(self, letter: DeadLetter) -> Deferred[None]:
        return maybeDeferred(self._letters.add, letter)

    def last_dead_letter(self) -> Deferred[int]:
        return succeed(self._letters.last)

    def drop_dead_letter(self, number: int) -> Deferred[None]:
        return maybeDeferred(self._letters.take, number)

    def redrive(self, number: int) -> Deferred[Acceptance]:
        return maybeDeferred(self._redrive, number)

    def _redrive(self, number: int) -> Acceptance:
        accepted = self._take(redriven(self._letters.find(number)))
        self._letters.take(number)
        return accepted

    def _queue(self, name: str) -> LocalQueue:
        queue = self._queues.get(name)
        if queue is None:
            queue = LocalQueue(self._results, self._letters, self._clock, self._timers, name, self._lease, self._waits)
            self._queues[name] = queue
        return queue

    def _ended(self, key: int, status: str) -> None:
        self._bytes -= self._sizes.pop(key, 0)
        for queue in self._queues.values():
            queue.ended(key, status)
