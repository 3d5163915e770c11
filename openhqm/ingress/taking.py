# -*- test-case-name: tests.ingress.test_http,tests.ingress.test_batch -*-
"""What the door does with a submission until the queue has accepted it: one by itself, or many in one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from openhqm.errors import NotDurable, OpenHQMError, TooMuchQueued
from openhqm.ingress.metrics import DoorMetrics
from openhqm.ingress.steps import StepBudget, divided
from openhqm.ingress.unavailable import Unavailable
from openhqm.interfaces import IMessageQueue
from openhqm.messages import Acceptance, Child, IdempotencyClaim, Submission
from openhqm.policy.addressing import Addressing, scoped
from openhqm.policy.children import DIVIDING
from openhqm.queue.message_size import check_size
from openhqm.queue.shedding import Accepts
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.steady_time import ahead_of

Read = tuple[Submission, IdempotencyClaim | None]
Accepted = tuple[Submission, IdempotencyClaim | None, Sequence[Submission], Sequence[Child]]
"""The arguments of `IMessageQueue.accept`."""
Outcome = Acceptance | Failure


class Taking:
    """Has submissions accepted through ``admission``; None: ``queue`` takes each.

    While `closed` is true, they are refused. `addressing` says where they go, and can be exchanged.
    """

    def __init__(
        self,
        queue: IMessageQueue,
        clock: IReactorTime,
        metrics: DoorMetrics,
        addressing: Addressing | None,
        admission: Accepts | None,
    ) -> None:
        self.closed = False
        self.addressing = addressing or Addressing()
        self._queue = queue
        self._admission: Accepts = admission or queue
        self._clock = clock
        self._clock_ahead = ahead_of(clock)
        self._metrics = metrics
        self._unavailable = Unavailable(clock)

    async def take(
        self, read: Callable[[float], Read], received: Callable[[], int], tenant: str | None = None
    ) -> Acceptance:
        """Have the queue accept the submission that ``read`` returns; ``received`` says how many bytes it came in.

        It is on behalf of ``tenant``, and the keys of each tenant are others. None: it has no tenant.
        The errors of ``read``; `InvalidRequest`, `MessageTooLarge`, `NotDurable`, `IdempotencyConflict`.
        """
        started, ahead = self._clock.seconds(), self._clock_ahead()
        try:
            self._check_open()
            accepted = self._prepare(*read(started + ahead), received, tenant, started, ahead)
            publishing = self._clock.seconds()
            # The caller may close the connection now: the request is stored all the same, and its key finds it.
            acceptance = await self._admission.accept(*accepted)
        except OpenHQMError as error:
            self._count_refused(error, tenant)
            raise
        now = self._clock.seconds()
        self._metrics.publish.observe(now - publishing)
        self._metrics.ingest.observe(now - started)
        self._metrics.count("replayed" if acceptance.replayed else "accepted", tenant)
        return acceptance

    def take_each(
        self,
        texts: Sequence[bytes],
        read: Callable[[int, bytes, float], Read],
        budget: StepBudget,
        tenant: str | None = None,
    ) -> Deferred[list[Outcome]]:
        """As `take`, for the submissions that ``read`` returns for each of ``texts``, by its index: in one step.

        Those that consist of steps have them of one ``budget``. Fires with what became of each, in order.
        """
        started, ahead = self._clock.seconds(), self._clock_ahead()
        moment = started + ahead
        accepting: list[Deferred[Acceptance]] = []
        with self._queue.together():
            for index, text in enumerate(texts):
                try:
                    self._check_open()
                    prepared = self._prepare(*read(index, text, moment), text.__len__, tenant, started, ahead, budget)
                    accepting.append(self._admission.accept(*prepared))
                except Exception:
                    accepting.append(fail(Failure()))
        return outcomes_of(accepting).addCallback(self._count_each, tenant, started)

    def _check_open(self) -> None:
        if self.closed:
            raise NotDurable("the process is stopping", retry_after=1)

    def _prepare(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        received: Callable[[], int],
        tenant: str | None,
        started: float,
        ahead: float,
        budget: StepBudget | None = None,
    ) -> Accepted:
        if tenant is not None:
            submission = replace(submission, tenant=tenant, share=self.addressing.share_of(tenant))
            claim = claim and replace(claim, scope=f"{tenant} {claim.scope}")
        if ahead and submission.not_before is not None:  # callers name times of day
            submission = replace(submission, not_before=submission.not_before - ahead)
        follow_ups = self.addressing.follow_ups(submission)
        children: Sequence[Child] = ()
        if submission.metadata and not submission.metadata.keys().isdisjoint(DIVIDING):
            submission, children = divided(submission, self.addressing, started, budget)
        else:
            submission = self.addressing.addressed(submission)
        if submission.coalescing is not None:
            submission = scoped(submission)
        largest = self._queue.traits.largest_message
        if largest is not None:
            check_size(submission, received(), largest)
            for child in children:
                check_size(child.submission, received(), largest)
        return submission, claim, follow_ups, children

    def _count_refused(self, error: OpenHQMError, tenant: str | None) -> None:
        outcome = "refused"
        if isinstance(error, TooMuchQueued):
            outcome = "limited"
        elif isinstance(error, NotDurable):
            outcome = "unavailable"
            self._unavailable.note(error.reason)
        self._metrics.count(outcome, tenant)

    def _count_each(self, outcomes: list[Outcome], tenant: str | None, started: float) -> list[Outcome]:
        accepted = [each.replayed for each in outcomes if isinstance(each, Acceptance)]
        seconds, replayed = self._clock.seconds() - started, sum(accepted)
        for durations in (self._metrics.publish, self._metrics.ingest):
            durations.observe(seconds, len(accepted))
        self._metrics.count("replayed", tenant, replayed)
        self._metrics.count("accepted", tenant, len(accepted) - replayed)
        for each in outcomes:
            if isinstance(each, Failure) and isinstance(each.value, OpenHQMError):
                self._count_refused(each.value, tenant)
        return outcomes


@deferred
async def outcomes_of(accepting: Sequence[Deferred[Acceptance]]) -> list[Outcome]:
    """What became of each. The last is waited for first: all of one step have fired once that has."""
    found: list[Outcome] = []
    try:
        for each in reversed(accepting):
            try:
                found.append(await each)
            except CancelledError:
                raise
            except Exception:
                found.append(Failure())
    finally:
        for each in accepting[: len(accepting) - len(found)]:  # their caller is gone
            each.addErrback(lambda failure: None)
    found.reverse()
    return found
