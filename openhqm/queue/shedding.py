# -*- test-case-name: tests.queue.test_shedding -*-
"""Load shedding: a queue in which too many requests wait, or for too long, takes no more (`queue.limits.shed_...`).

How much waits is asked of the queue while requests come for it, at most once a second, and counted on from there. So
accepting waits for nothing, and a queue into which no request comes costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from openhqm.errors import QueueFull
from openhqm.interfaces import IMessageQueue
from openhqm.messages import Acceptance, Child, IdempotencyClaim, Submission
from openhqm.policy.limits import AGE, DEADLINE, WAITING, Limits
from openhqm.policy.queue_names import priority_of, queue_of
from openhqm.queue.backlogs import STALE_SECONDS, Backlogs, Look
from openhqm.runtime.counting import Counts

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


class Shedding:
    """Accepts into ``queue`` what is within ``limits`` of the queue that it would wait in.

    ``requests`` is the name of the request queue. ``counts`` counts what was kept out, by one of `REASONS`.

    A repeat is answered all the same, and a follow-up is never kept out.
    """

    def __init__(
        self, queue: IMessageQueue, requests: str, clock: IReactorTime, limits: Limits, counts: Counts
    ) -> None:
        self._queue = queue
        self._requests = requests
        self._clock = clock
        self._counts = counts
        self._backlogs = Backlogs(queue, clock)
        self.limit(limits)

    def limit(self, limits: Limits) -> None:
        """Other limits hold from now on."""
        self._limits = limits
        self.accept = self._accept_within if limits.sheds else self._queue.accept
        if not limits.sheds:
            self._backlogs.forget()

    @property
    def warnings(self) -> Sequence[str]:
        """Which queues take no more, and why."""
        since = self._clock.seconds() - STALE_SECONDS
        return [f"requests are refused: {look.reason}" for look in self._backlogs if look.shed_at > since]

    def _accept_within(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Deferred[Acceptance]:
        first = children[0].submission if children else submission
        name, priority = queue_of(self._requests, first), priority_of(first)
        look = self._backlogs.of(name)
        now = self._clock.seconds()
        found = None
        if look.is_known(now):
            ahead, since = look.ahead(priority)
            is_delayed = submission.not_before is not None and submission.not_before > now
            waited = 0.0 if since is None or is_delayed else now - since
            found = self._limits.shed(name, ahead, waited, submission.timeout)
        if found is None:
            look.accept(priority)
            return self._queue.accept(submission, claim, follow_ups, children)
        if claim is None:
            return fail(self._refuse(look, *found))
        repeated = self._queue.accept(submission, replace(claim, repeats_only=True), follow_ups, children)
        return repeated.addErrback(self._not_repeated, look, found)

    def _not_repeated(self, failure: Failure, look: Look, found: tuple[str, QueueFull]) -> Failure:
        failure.trap(QueueFull)
        return Failure(self._refuse(look, *found))

    def _refuse(self, look: Look, why: str, error: QueueFull) -> QueueFull:
        look.reason, look.shed_at = error.reason, self._clock.seconds()
        self._counts.inc(why)
        return error


def count_shed(registry: CollectorRegistry) -> Counts:
    """The metric of what was kept out, registered in ``registry``."""
    text = "Requests that were refused for what waited in their queue, by what was too much."
    return Counts("openhqm_requests_shed", text, "reason", REASONS, registry)
