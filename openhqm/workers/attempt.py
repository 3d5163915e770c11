# -*- test-case-name: tests.test_attempt -*-
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

from openhqm.errors import LoanOver, NotDurable, Reject, RetryLater
from openhqm.interfaces import IDelivery
from openhqm.messages import Reply, Status
from openhqm.policy.retry import RetryPolicy
from openhqm.workers.handlers import Handlers, Response, Work, checked_headers, result_text
from openhqm.workers.metrics import WorkerMetrics

MOST_RESULT_BYTES = 10 * 1024 * 1024
MOST_ERROR_CHARACTERS = 2000
SETTLE_AGAIN_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 30 * 86400.0


class _TimeIsUp(Exception):
    """The attempt reached its limit."""


class _InVain(Exception):
    """The request ended elsewhere, or the lease was lost, while the handler ran."""


@attrs.define
class Attempts:
    """How attempts are made: with which handlers, for how long, and how often.

    ``random`` gives numbers in [0, 1) for the jitter; ``timeout`` is the limit of one attempt in seconds.
    """

    handlers: Handlers
    policy: RetryPolicy
    timeout: float
    clock: IReactorTime
    random: Callable[[], float]
    from_thread: Callable[[Callable[[], None]], None]
    metrics: WorkerMetrics
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
        self._giving_back = False
        self._handled = handled
        self.finished: Deferred[None] | None = None

    async def make(self) -> None:
        """Run the handler and settle the loan. Raises nothing that the loan could be responsible for."""
        delivery, attempts = self._delivery, self._all
        started = attempts.clock.seconds()
        if delivery.attempt > attempts.policy.max_retries + 1:
            # Counted, lent, never settled, over and over: it takes the process with it.
            made = delivery.attempt - 1
            error = f"none of its {made} attempts came to an end: the process ended with them"
            await self._bury("poison", attrs.evolve(self._reply(Status.FAILED, started, error), attempt=made))
            return
        try:
            answer = await self._run()
            reply = self._completed(answer, started)
        except _InVain:
            await self._settle(delivery.ack)
        except CancelledError:
            if self._giving_back:
                await self._settle(delivery.give_back)
            else:
                await self._failed(Status.FAILED, "the handler was cancelled from within", started)
        except Reject as error:
            await self._bury("rejected by the handler", self._reply(Status.FAILED, started, error=_words(error)))
        except RetryLater as error:
            await self._failed(Status.FAILED, _words(error), started, error.delay)
        except _TimeIsUp:
            await self._failed(Status.TIMEOUT, f"no answer within {attempts.timeout:g} s", started)
        except (Exception, SystemExit) as error:  # the handler's own: any failure is a failed attempt
            attempts.log.failure("attempt {attempt} failed", attempt=delivery.attempt, correlation_id=self._id)
            await self._failed(Status.FAILED, _words(error), started)
        else:
            if isinstance(reply, str):
                await self._bury("unusable answer", self._reply(Status.FAILED, started, error=reply))
            elif await self._settle(lambda: delivery.settle(reply)):
                attempts.metrics.finished(self._delivery.request, attempts.clock.seconds())
        finally:
            attempts.metrics.processed(attempts.clock.seconds() - started)

    def give_back(self) -> None:
        """Stop the handler and give the loan back: the process is going down."""
        self._giving_back = True
        if self._running is not None and not self._running.called:
            self._running.errback(CancelledError())

    async def _run(self) -> Any:
        """The handler's answer; `_TimeIsUp` and `_InVain` come even where the handler does not let go."""
        attempts, delivery = self._all, self._delivery
        now = attempts.clock.seconds()
        limit = attempts.timeout
        deadline = delivery.request.deadline
        if deadline is not None:
            limit = min(limit, max(0.0, deadline - now))
        work = Work(delivery.request, delivery.attempt, limit, attempts.clock, self._report)
        inner = attempts.handlers.run(work)
        if inner.called and not inner.paused:
            self._handled()
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
            elif isinstance(result, Failure) and not result.check(CancelledError):
                attempts.log.failure("the handler failed after it was given up", result, correlation_id=self._id)
            if self.finished is not None:
                self.finished.callback(None)

        inner.addBoth(done)
        timer = attempts.clock.callLater(limit, stop, _TimeIsUp())
        delivery.revoked.addCallback(lambda reason: stop(_InVain(reason)))
        try:
            return await outer
        finally:
            self._running = None
            if timer.active():
                timer.cancel()
            inner.cancel()
            if self.finished.called:
                self._handled()

    def _report(self, detail: dict[str, Any]) -> None:
        self._all.from_thread(lambda: self._progress(detail))

    def _progress(self, detail: dict[str, Any]) -> None:
        self._delivery.progress(detail).addErrback(self._progress_was_lost)

    def _progress_was_lost(self, failure: Failure) -> None:
        reason = failure.getErrorMessage()
        self._all.log.warn("progress was not kept: {reason}", reason=reason, correlation_id=self._id)

    def _completed(self, answer: Any, started: float) -> Reply | str:
        """The reply, or what is wrong with the answer."""
        response = answer if isinstance(answer, Response) else Response(answer)
        try:
            headers = checked_headers(response.headers)
            text = None if response.body is not None else result_text(response.result)
        except ValueError as error:
            return _words(error)
        if len(response.body or text or b"") > MOST_RESULT_BYTES:
            return f"the answer is larger than {MOST_RESULT_BYTES} bytes"
        return attrs.evolve(
            self._reply(Status.COMPLETED, started),
            result=text,
            body=response.body,
            status_code=response.status_code,
            headers=headers,
        )

    async def _failed(self, status: Status, error: str, started: float, delay: float | None = None) -> None:
        policy, delivery = self._all.policy, self._delivery
        if policy.exhausted(delivery.attempt):
            reason = f"{delivery.attempt} attempts failed" if delivery.attempt > 1 else "the attempt failed"
            await self._bury(reason, self._reply(status, started, error=error))
            return
        if delay is None or not 0 <= delay <= LONGEST_DELAY_SECONDS:
            delay = policy.delay(delivery.attempt, self._all.random)
        pause = delay
        await self._settle(lambda: delivery.retry(pause, error))
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
            except LoanOver as over:
                self._all.metrics.late()
                self._all.log.warn("too late to settle: {reason}", reason=over.reason, correlation_id=self._id)
                return False
            except NotDurable as error:
                self._all.log.error("cannot settle yet: {reason}", reason=error.reason, correlation_id=self._id)
                await deferLater(self._all.clock, SETTLE_AGAIN_SECONDS)

    def _reply(self, status: Status, started: float, error: str | None = None) -> Reply:
        now = self._all.clock.seconds()
        return Reply(
            self._id,
            status,
            now,
            error=error,
            status_code=200 if error is None else 502 if status is Status.FAILED else 504,
            attempt=self._delivery.attempt,
            processing_time_ms=round((now - started) * 1000),
        )


def _words(error: BaseException) -> str:
    name = "" if isinstance(error, Reject | RetryLater | ValueError) else f"{type(error).__name__}: "
    words = f"{name}{error}"[:MOST_ERROR_CHARACTERS]
    return words.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot be kept anywhere
