# -*- test-case-name: tests.workers.test_attempt -*-
"""One attempt at one request: from the loan to its settling.

The order is the promise: the attempt was counted durably before it was lent; the reply is durable before, or
together with, the end of the loan. What kills the process on any line leaves a loan that is lent anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import DeliveryClosed, NotDurable, Reject, RetryLater
from openhqm.interfaces import IDelivery
from openhqm.messages import Reply, Status
from openhqm.policy.retry import RetryPolicy
from openhqm.workers.gate import Call, Gate, GateClosed
from openhqm.workers.handlers import Handlers, TimeIsUp, Work
from openhqm.workers.metrics import WorkerMetrics
from openhqm.workers.replies import MOST_RESULT_BYTES, UnusableAnswer, blank, completed, failed, words

SETTLE_AGAIN_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 30 * 86400.0


class _InVain(Exception):
    """The request ended elsewhere, or the lease was lost, while the handler ran."""


@attrs.define
class Attempts:
    """How attempts are made: with which handlers, for how long, and how often.

    ``random`` gives numbers in [0, 1) for the jitter; ``timeout`` is the limit of one attempt in seconds. Each one
    passes the ``gate`` before it begins, if there is one. ``most_result`` bounds an answer, in bytes.
    """

    handlers: Handlers
    policy: RetryPolicy
    timeout: float
    clock: IReactorTime
    random: Callable[[], float]
    from_thread: Callable[[Callable[[], None]], None]
    metrics: WorkerMetrics
    gate: Gate | None = None
    most_result: int = MOST_RESULT_BYTES
    log: Logger = attrs.field(factory=Logger)


class Attempt:
    """One attempt at ``delivery``. ``handled`` is called once the handler has let go, before the loan is settled.

    ``finished`` fires once the handler itself has let go, which may be later
    than `make`: a thread cannot be interrupted."""

    def __init__(self, attempts: Attempts, delivery: IDelivery, handled: Callable[[], None]) -> None:
        self._all = attempts
        self._delivery = delivery
        self._id = delivery.request.correlation_id
        self._running: Deferred[Any] | None = None
        self._entering: Deferred[Call] | None = None
        self._call: Call | None = None
        self._giving_back = False
        self._hurried = False
        self._handled = handled
        self.finished: Deferred[None] | None = None

    async def make(self) -> None:
        """Run the handler and settle the loan. Raises nothing that the loan could be responsible for."""
        delivery, attempts = self._delivery, self._all
        if delivery.attempt > attempts.policy.max_retries + 1:
            # Counted, lent, never settled, over and over: it takes the process with it.
            made = delivery.attempt - 1
            error = f"none of its {made} attempts came to an end: the process ended with them"
            reply = blank(self._id, Status.FAILED, attempts.clock.seconds(), made, attempts.clock.seconds())
            await self._bury("poison", attrs.evolve(reply, error=error))
            return
        if attempts.gate is not None and not await self._enter(attempts.gate):
            return
        started = attempts.clock.seconds()
        try:
            answer = await self._run()
            done = completed(self._blank(Status.COMPLETED, started), answer, attempts.most_result)
        except _InVain:
            await self._settle(delivery.ack)
        except CancelledError:
            if self._giving_back:
                await self._settle(delivery.release)
            else:
                await self._failed(self._blank(Status.FAILED, started, "the handler was cancelled from within"))
        except Reject as error:
            reason = "rejected by the handler" if error.answer is None else "the answer is final"
            await self._bury(reason, self._failure(started, error))
        except RetryLater as error:
            await self._failed(self._failure(started, error), error.delay, error.at_least)
        except TimeIsUp as error:
            limit = str(error) or f"no answer within {attempts.timeout:g} s"
            await self._failed(self._blank(Status.TIMEOUT, started, limit))
        except UnusableAnswer as error:
            await self._bury("unusable answer", self._blank(Status.FAILED, started, words(error)))
        except (Exception, SystemExit) as error:  # the handler's own: any failure is a failed attempt
            attempts.log.failure("attempt {attempt} failed", attempt=delivery.attempt, correlation_id=self._id)
            await self._failed(self._blank(Status.FAILED, started, words(error)))
        else:
            if await self._settle(lambda: delivery.settle(done)):
                attempts.metrics.finished(self._delivery.request, attempts.clock.seconds())
        finally:
            attempts.metrics.processed(attempts.clock.seconds() - started)

    def release(self) -> None:
        """Stop the handler and give the loan back: the process is going down."""
        self._giving_back = True
        if self._entering is not None:
            self._entering.cancel()
        if self._running is not None and not self._running.called:
            self._running.errback(CancelledError())

    async def _enter(self, gate: Gate) -> bool:
        """Pass the gate. False: the loan was settled without an attempt."""
        entering = self._entering = gate.enter()

        def give_up(reason: str) -> str:
            entering.cancel()
            return reason

        self._delivery.revoked.addCallback(give_up)
        try:
            self._call = await entering
        except GateClosed:
            await self._settle(self._delivery.release)
        except CancelledError:
            await self._settle(self._delivery.release if self._giving_back else self._delivery.ack)
        finally:
            self._entering = None
        return self._call is not None

    async def _run(self) -> Any:
        """The handler's answer, once it has let go of its target and its hand."""
        said: bool | None = None  # about the target
        try:
            answer = await self._limited()
            said = True
            return answer
        except RetryLater:
            said = False
            raise
        except TimeIsUp:
            # Callers choose their deadlines: a short one is no word about the target, or they could close it.
            said = None if self._hurried else False
            raise
        except Reject as error:
            said = True if error.answer is not None else None
            raise
        finally:
            if self._call is not None:
                self._call.end(said)
            if self.finished is None or self.finished.called:
                self._handled()

    async def _limited(self) -> Any:
        """The handler's answer; `TimeIsUp` and `_InVain` come even where the handler does not let go."""
        attempts, delivery = self._all, self._delivery
        now = attempts.clock.seconds()
        limit = attempts.timeout
        deadline = delivery.request.deadline
        if deadline is not None:
            self._hurried = deadline - now < limit
            limit = min(limit, max(0.0, deadline - now))
        most = attempts.policy.max_retries + 1
        work = Work(delivery.request, delivery.attempt, limit, attempts.clock, self._report, most)
        inner = attempts.handlers.run(work).addErrback(_as_failure)
        if inner.called and not inner.paused:
            return await inner
        outer: Deferred[Any] = Deferred()
        self._running = outer
        self.finished = Deferred()

        def stop(error: Exception) -> None:
            if self._running is outer and not outer.called:
                outer.errback(error)

        def done(result: Any) -> None:
            if self._running is outer and not outer.called:
                outer.callback(result)
            elif isinstance(result, Failure) and not result.check(CancelledError, TimeIsUp, RetryLater, Reject):
                attempts.log.failure("the handler failed after it was given up", result, correlation_id=self._id)
            if self.finished is not None:
                self.finished.callback(None)

        inner.addBoth(done)
        timer = attempts.clock.callLater(limit, stop, TimeIsUp())
        delivery.revoked.addCallback(lambda reason: stop(_InVain(reason)))
        try:
            return await outer
        finally:
            self._running = None
            if timer.active():
                timer.cancel()
            inner.cancel()

    def _report(self, detail: dict[str, Any]) -> None:
        self._all.from_thread(lambda: self._progress(detail))

    def _progress(self, detail: dict[str, Any]) -> None:
        self._delivery.progress(detail).addErrback(self._progress_was_lost)

    def _progress_was_lost(self, failure: Failure) -> None:
        reason = failure.getErrorMessage()
        self._all.log.warn("progress was not kept: {reason}", reason=reason, correlation_id=self._id)

    async def _failed(self, reply: Reply, delay: float | None = None, at_least: float = 0.0) -> None:
        policy, delivery = self._all.policy, self._delivery
        if policy.exhausted(delivery.attempt):
            reason = f"{delivery.attempt} attempts failed" if delivery.attempt > 1 else "the attempt failed"
            await self._bury(reason, reply)
            return
        if delay is None or not 0 <= delay <= LONGEST_DELAY_SECONDS:
            delay = policy.delay(delivery.attempt, self._all.random)
        pause = max(delay, min(at_least, LONGEST_DELAY_SECONDS))
        await self._settle(lambda: delivery.retry(pause, reply.error or ""))
        self._all.metrics.retried()

    async def _bury(self, reason: str, reply: Reply) -> None:
        if await self._settle(lambda: self._delivery.dead_letter(reason, reply)):
            self._all.metrics.buried()
            self._all.metrics.finished(self._delivery.request, self._all.clock.seconds())
            self._all.log.warn(
                "dead letter: {reason}: {error}", reason=reason, error=reply.error, correlation_id=self._id
            )

    async def _settle(self, step: Callable[[], Deferred[Any]]) -> Any:
        """Settle, and where the store cannot keep it now, again: the work is done and must not be lost."""
        while True:
            try:
                return await step()
            except DeliveryClosed as over:
                self._all.metrics.late()
                self._all.log.warn("too late to settle: {reason}", reason=over.reason, correlation_id=self._id)
                return False
            except NotDurable as error:
                self._all.log.error("cannot settle yet: {reason}", reason=error.reason, correlation_id=self._id)
                await deferLater(self._all.clock, SETTLE_AGAIN_SECONDS)

    def _failure(self, started: float, error: Reject | RetryLater) -> Reply:
        return failed(self._blank(Status.FAILED, started), error, self._all.most_result)

    def _blank(self, status: Status, started: float, error: str | None = None) -> Reply:
        now = self._all.clock.seconds()
        return attrs.evolve(blank(self._id, status, now, self._delivery.attempt, started), error=error)


def _as_failure(failure: Failure) -> Failure:
    """What would end more than the attempt (KeyboardInterrupt, asyncio's CancelledError) made into what ends it."""
    error = failure.value
    if error is None or isinstance(error, Exception | SystemExit):
        return failure
    raise RuntimeError(words(error)) from error
