# -*- test-case-name: tests.queue.test_shedding -*-
"""Load shedding: a queue in which too many requests wait, or for too long, takes no more (`queue.limits.shed_...`).

How much waits is asked of the queue while requests come for it, at most once a second, and counted on from there. So
accepting waits for nothing, and a queue into which no request comes costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable, QueueFull
from openhqm.interfaces import IMessageQueue
from openhqm.messages import Acceptance, Child, IdempotencyClaim, Priority, Submission, Waiting
from openhqm.policy.limits import AGE, DEADLINE, WAITING, Limits
from openhqm.policy.queue_names import MOST_QUEUES, priority_of, queue_of
from openhqm.runtime.counting import Counts

LOOK_SECONDS = 1.0
STALE_SECONDS = 10.0
"""What was known so long ago keeps nothing out."""
REASONS = (WAITING, AGE, DEADLINE)


class Accepts(Protocol):
    """What accepts requests: a queue, or what stands before it."""

    def accept(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Deferred[Acceptance]:
        """See `IMessageQueue.accept`."""


@attrs.define(eq=False)
class _Look:
    """What is known of a queue: ``backlog`` at the time ``at``, and how many requests were accepted after that.

    ``accepted_since`` counts from the beginning of the look that is ``under_way``. ``reason`` is why a request was kept
    out last, at ``shed_at``.
    """

    backlog: Mapping[Priority, Waiting] | None = None
    at: float = float("-inf")
    asked_at: float = float("-inf")
    under_way: bool = False
    accepted: Counter[Priority] = attrs.field(factory=Counter)
    accepted_since: Counter[Priority] = attrs.field(factory=Counter)
    reason: str = ""
    shed_at: float = float("-inf")

    def ahead(self, priority: Priority) -> tuple[int, float | None]:
        """How many requests wait that go before a new one of ``priority``, and since when the first of them."""
        count, since = 0, None
        for each in Priority:  # high first
            waiting = (self.backlog or {}).get(each)
            count += self.accepted[each]
            if waiting is not None:
                count += waiting.count
                if waiting.since is not None and (since is None or waiting.since < since):
                    since = waiting.since
            if each is priority:
                break
        return count, since


class Shedding:
    """Accepts into ``queue`` what is within ``limits`` of the queue that it would wait in.

    ``requests`` is the name of the request queue. ``counts`` counts what was kept out, by one of `REASONS`.

    A repeat is answered all the same, and a follow-up is never kept out.
    """

    _log = Logger()

    def __init__(
        self, queue: IMessageQueue, requests: str, clock: IReactorTime, limits: Limits, counts: Counts
    ) -> None:
        self._queue = queue
        self._requests = requests
        self._clock = clock
        self._counts = counts
        self._looks: dict[str, _Look] = {}
        self.limit(limits)

    def limit(self, limits: Limits) -> None:
        """Other limits hold from now on."""
        self._limits = limits
        self.accept = self._accept_within if limits.sheds else self._queue.accept
        if not limits.sheds:
            self._looks.clear()

    @property
    def warnings(self) -> Sequence[str]:
        """Which queues take no more, and why."""
        since = self._clock.seconds() - STALE_SECONDS
        return [f"requests are refused: {look.reason}" for look in self._looks.values() if look.shed_at > since]

    def _accept_within(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Deferred[Acceptance]:
        first = children[0].submission if children else submission
        name, priority = queue_of(self._requests, first), priority_of(first)
        look = self._look_at(name)
        now = self._clock.seconds()
        found = None
        if look.backlog is not None and now - look.at <= STALE_SECONDS:
            ahead, since = look.ahead(priority)
            is_delayed = submission.not_before is not None and submission.not_before > now
            waited = 0.0 if since is None or is_delayed else now - since
            found = self._limits.shed(name, ahead, waited, submission.timeout)
        if found is None:
            look.accepted[priority] += 1
            look.accepted_since[priority] += 1
            return self._queue.accept(submission, claim, follow_ups, children)
        if claim is None:
            return fail(self._refuse(look, *found))
        repeated = self._queue.accept(submission, replace(claim, repeats_only=True), follow_ups, children)
        return repeated.addErrback(self._not_repeated, look, found)

    def _not_repeated(self, failure: Failure, look: _Look, found: tuple[str, QueueFull]) -> Failure:
        failure.trap(QueueFull)
        return Failure(self._refuse(look, *found))

    def _refuse(self, look: _Look, why: str, error: QueueFull) -> QueueFull:
        look.reason, look.shed_at = error.reason, self._clock.seconds()
        self._counts.inc(why)
        return error

    def _look_at(self, name: str) -> _Look:
        look = self._looks.get(name)
        if look is None:
            if len(self._looks) >= MOST_QUEUES:  # of endpoints that were removed
                self._looks.clear()
            look = self._looks[name] = _Look()
        now = self._clock.seconds()
        if not look.under_way and now - look.asked_at >= LOOK_SECONDS:
            look.under_way, look.asked_at = True, now
            look.accepted_since = Counter()
            asked = self._queue.waiting(name).addTimeout(STALE_SECONDS, self._clock)
            asked.addCallback(self._looked, look).addErrback(self._not_looked, look)
        return look

    def _looked(self, backlog: Mapping[Priority, Waiting], look: _Look) -> None:
        look.under_way = False
        look.backlog, look.at = backlog, self._clock.seconds()
        look.accepted, look.accepted_since = look.accepted_since, Counter()

    def _not_looked(self, failure: Failure, look: _Look) -> None:
        look.under_way = False
        if not failure.check(NotDurable, TimeoutError):
            self._log.failure("asking a queue how much waits in it broke down", failure)


def count_shed(registry: CollectorRegistry) -> Counts:
    """The metric of what was kept out, registered in ``registry``."""
    text = "Requests that were refused for what waited in their queue, by what was too much."
    return Counts("openhqm_requests_shed", text, "reason", REASONS, registry)
