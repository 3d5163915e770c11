# -*- test-case-name: tests.workers.test_attempt -*-
"""One attempt at one request: from receiving the delivery to settling it.

The order of the steps keeps two promises. The backend has counted the attempt durably before the delivery arrives
here. The reply is durable before the delivery is settled, or both are one step. Where the process is killed between
any two lines, the delivery is not settled, and the queue delivers the request again when the lease has run out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import DeliveryClosed, NotDurable, Reject, RetryLater
from openhqm.interfaces import IDelivery
from openhqm.messages import Reply, Status
from openhqm.policy.reason_classes import ReasonClass
from openhqm.policy.retry import Retries
from openhqm.runtime.steady_time import ahead_of
from openhqm.workers.gate import Call, Gate, GateClosed
from openhqm.workers.handlers import AttemptTimedOut, FinishedLater, Handlers, Unreachable, Work
from openhqm.workers.metrics import WorkerMetrics
from openhqm.workers.replies import (
    MOST_RESULT_BYTES,
    UnusableAnswer,
    as_failure,
    asked_delays,
    blank,
    describe,
    failed,
    result_of,
    with_result,
)

SETTLE_AGAIN_SECONDS = 1.0
FINISH_SECONDS = 86400.0


class _Revoked(Exception):
    """The request ended elsewhere, or the lease was lost, while the handler ran: its answer has no use."""


class _Stopping:
    """Ends an attempt before its handler has answered, by calling ``stop``. The first reason counts.

    It refers to nothing once the attempt is `over`: it stays known to the delivery, which belongs to the attempt, and
    each attempt would wait for the garbage collector.
    """

    __slots__ = ("_stop", "reason")

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop: Callable[[], None] | None = stop
        self.reason: Exception | None = None

    @property
    def stops(self) -> bool:
        """Whether the attempt goes on, and can be stopped."""
        return self._stop is not None

    def stop(self, reason: Exception) -> None:
        """End the attempt, which fails with ``reason``."""
        stop, self._stop = self._stop, None
        if stop is not None:
            self.reason = reason
            stop()

    def revoked(self, reason: str) -> None:
        """The delivery was revoked."""
        self.stop(_Revoked(reason))

    def over(self) -> None:
        """The attempt has ended."""
        self._stop = None


@attrs.define
class AttemptContext:
    """What all attempts of one consumer share.

    ``policy`` decides how many attempts are made, and how far apart. ``timeout`` is the limit of one attempt in
    seconds. ``random`` returns numbers in [0, 1) for the jitter of a delay. ``from_thread`` runs a function in the
    reactor's thread. ``gate``, where there is one, admits each attempt before it begins. Where there is a
    ``probe``, the gate finds out by it whether the target can be reached; see `Gate`. ``most_result`` is the largest
    answer in bytes.
    """

    handlers: Handlers
    policy: Retries
    timeout: float
    clock: IReactorTime
    random: Callable[[], float]
    from_thread: Callable[[Callable[[], None]], None]
    metrics: WorkerMetrics
    gate: Gate | None = None
    probe: Callable[[], Deferred[Any]] | None = None
    most_result: int = MOST_RESULT_BYTES
    log: Logger = attrs.field(factory=Logger)


class Attempt:
    """One attempt at the request of ``delivery``.

    ``on_handled`` is called when the handler has returned, before the delivery is settled. ``handler_returned`` is
    None where the handler answered at once. Otherwise it fires when the handler has returned, which may be later than
    `run`: a thread cannot be interrupted.
    """

    def __init__(self, context: AttemptContext, delivery: IDelivery, on_handled: Callable[[], None]) -> None:
        self._context = context
        self._delivery = delivery
        self._id = delivery.request.correlation_id
        self._stop: Callable[[Exception], None] | None = None
        self._entering: Deferred[Call] | None = None
        self._call: Call | None = None
        self._releasing = False
        self._limited_by_deadline = False
        self._on_handled = on_handled
        self.handler_returned: Deferred[None] | None = None

    async def run(self) -> None:
        """Call the handler and settle the delivery. Every failure of the handler becomes an outcome of the attempt.

        So does one of ours, as far as it can be settled: an attempt that ends without an outcome would wait for the
        end of its lease, and be counted as one that took the process down.
        """
        try:
            await self._run()
        except Exception as error:
            now = self._context.clock.seconds()
            self._context.log.failure("an attempt could not be ended", correlation_id=self._id)
            reason = f"OpenHQM could not end the attempt: {describe(error)}"
            await self._failed(self._blank(Status.FAILED, now, reason))

    async def _run(self) -> None:
        delivery, context = self._delivery, self._context
        if delivery.attempt > context.policy.max_retries + 1:
            # All allowed attempts were counted, and none was settled: the request takes the process down each time.
            made = delivery.attempt - 1
            error = f"the worker process ended during each of the {made} attempts, or the target did not finish one"
            reply = blank(self._id, Status.FAILED, context.clock.seconds(), made, context.clock.seconds())
            await self._dead_letter("poison", ReasonClass.POISON, replace(reply, error=error))
            return
        if context.gate is not None:
            self._call = context.gate.enter_now(delivery.request)
            if self._call is None and not await self._pass_gate(context.gate):
                return
        started = context.clock.seconds()
        try:
            answer = await self._call_handler(started)
            keeps_result = delivery.request.submission.keeps_result
            result = result_of(answer, context.most_result, keeps_result)
            now = context.clock.seconds()
            done = with_result(self._id, Status.COMPLETED, now, delivery.attempt, started, **result)
        except _Revoked:
            await self._settle(delivery.ack)
        except CancelledError:
            if self._releasing:
                await self._settle(delivery.release)
            else:
                await self._failed(self._blank(Status.FAILED, started, "the handler raised CancelledError"))
        except Reject as error:
            reason, kind = (
                ("rejected by the handler", ReasonClass.REJECTED)
                if error.answer is None
                else ("the answer is final", ReasonClass.FINAL_ANSWER)
            )
            await self._dead_letter(reason, kind, self._failure(started, error))
        except Unreachable as error:
            if context.probe is None:
                await self._failed(self._failure(started, error))
            else:
                context.log.warn("{reason}: what is for it waits, and spends no attempt", reason=str(error))
                await self._settle(delivery.release)
        except RetryLater as error:
            now = context.clock.seconds() + ahead_of(context.clock)()  # a service names times of day
            await self._failed(*asked_delays(self._failure(started, error), error, now))
        except AttemptTimedOut as error:
            limit = str(error) or self._exceeded()
            await self._failed(self._blank(Status.TIMEOUT, started, limit))
        except UnusableAnswer as error:
            reply = self._blank(Status.FAILED, started, describe(error))
            await self._dead_letter("unusable answer", ReasonClass.UNUSABLE_ANSWER, reply)
        except (Exception, SystemExit) as error:  # of the handler: each of its errors is a failed attempt
            context.log.failure("attempt {attempt} failed", attempt=delivery.attempt, correlation_id=self._id)
            await self._failed(self._blank(Status.FAILED, started, describe(error)))
        else:
            if isinstance(answer, FinishedLater):
                await self._settle(lambda: delivery.retry(self._longest(), "the target has not finished it"))
            elif await self._settle(lambda: delivery.settle(done)):
                context.metrics.finished(delivery.request, context.clock.seconds())
        finally:
            context.metrics.processed(context.clock.seconds() - started)

    def _longest(self) -> float:
        """How long the target may take to finish the request: until its deadline, or a day."""
        deadline = self._delivery.request.deadline
        return FINISH_SECONDS if deadline is None else max(0.0, deadline - self._context.clock.seconds()) + 1.0

    def _exceeded(self) -> str:
        """Which limit an attempt did not keep."""
        if self._limited_by_deadline:
            return f"the deadline of the request passed during attempt {self._delivery.attempt}"
        return f"no answer within {self._context.timeout:g} s"

    def release(self) -> None:
        """Cancel the handler and release the delivery, because the process stops. The attempt is not counted."""
        self._releasing = True
        if self._entering is not None:
            self._entering.cancel()
        if self._stop is not None:
            self._stop(CancelledError())

    def release_waiting(self) -> None:
        """Release the delivery where its attempt waits before the gate. Where it has begun, it goes on."""
        if self._entering is not None:
            self._releasing = True
            self._entering.cancel()

    async def _pass_gate(self, gate: Gate) -> bool:
        """Wait until ``gate`` admits this attempt. False: the delivery was settled, and no handler was called."""
        entering = self._entering = gate.enter(self._delivery.request)

        def give_up(reason: str) -> str:
            entering.cancel()
            return reason

        self._delivery.revoked.addCallback(give_up)
        try:
            self._call = await entering
        except GateClosed:
            await self._settle(self._delivery.release)
        except CancelledError:
            await self._settle(self._delivery.release if self._releasing else self._delivery.ack)
        finally:
            self._entering = None
        return self._call is not None

    async def _call_handler(self, now: float) -> Any:
        """The handler's answer. The gate learns what the outcome says about the target, before the slot is free."""
        success: bool | None = None  # None: the outcome says nothing about the target
        reached = True
        try:
            answer = await self._call_within_limit(now)
            success = True
            return answer
        except Unreachable as error:
            success = reached = False
            if error.timed_out and self._limited_by_deadline:
                success, reached = None, True
            raise
        except RetryLater:
            success = False
            raise
        except AttemptTimedOut:
            # Callers choose their deadlines. If a short one counted against the target, callers could open its breaker.
            success = None if self._limited_by_deadline else False
            raise
        except Reject as error:
            success = True if error.answer is not None else None
            raise
        finally:
            if self._call is not None:
                self._call.end(success, reached=reached)
            if self.handler_returned is None or self.handler_returned.called:
                self._on_handled()

    def _call_within_limit(self, now: float) -> Awaitable[Any]:
        """The handler's answer. `AttemptTimedOut` and `_Revoked` are raised also where the handler does not return."""
        context, delivery = self._context, self._delivery
        limit = context.timeout
        deadline = delivery.request.deadline
        if deadline is not None:
            self._limited_by_deadline = deadline - now < limit
            limit = min(limit, max(0.0, deadline - now))
        most = context.policy.max_retries + 1
        replayed = self._call is not None and self._call.replayed
        work = Work(delivery.request, delivery.attempt, limit, context.clock, self._report, most, replayed)
        inner = context.handlers.run(work)
        if context.handlers.keeps_time:
            return self._until_ended(inner)
        inner.addErrback(as_failure)
        return inner if inner.called and not inner.paused else self._until_stopped(inner, limit)

    async def _until_ended(self, inner: Deferred[Any]) -> Any:
        """The answer of a handler that keeps the time limit itself, and that has ended when it is cancelled."""
        stopping = _Stopping(inner.cancel)
        self._stop = stopping.stop
        self._delivery.revoked.addCallback(stopping.revoked)
        try:
            return await inner
        except Exception as error:
            raise (stopping.reason or error) from None
        finally:
            self._stop = None
            stopping.over()

    async def _until_stopped(self, inner: Deferred[Any], limit: float) -> Any:
        """The answer of any other handler, which may go on after it was given up."""
        context = self._context
        outer: Deferred[Any] = Deferred()
        self.handler_returned = Deferred()
        stopping = _Stopping(lambda: outer.errback(stopping.reason))

        def done(result: Any) -> None:
            if stopping.stops:
                stopping.over()
                outer.callback(result)
            elif isinstance(result, Failure) and not result.check(CancelledError, AttemptTimedOut, RetryLater, Reject):
                context.log.failure("the handler failed after it was given up", result, correlation_id=self._id)
            if self.handler_returned is not None:
                self.handler_returned.callback(None)

        self._stop = stopping.stop
        inner.addBoth(done)
        timer = context.clock.callLater(limit, stopping.stop, AttemptTimedOut())
        self._delivery.revoked.addCallback(stopping.revoked)
        try:
            return await outer
        finally:
            self._stop = None
            stopping.over()
            if timer.active():
                timer.cancel()
            self._cancel(inner)

    def _cancel(self, inner: Deferred[Any]) -> None:
        try:
            inner.cancel()
        except Exception:  # of the canceller, which is the handler's code
            self._context.log.failure("the handler failed when it was cancelled", correlation_id=self._id)

    def _report(self, detail: dict[str, Any]) -> None:
        self._context.from_thread(lambda: self._progress(detail))

    def _progress(self, detail: dict[str, Any]) -> None:
        self._delivery.progress(detail).addErrback(self._progress_was_not_stored)

    def _progress_was_not_stored(self, failure: Failure) -> None:
        reason = failure.getErrorMessage()
        self._context.log.warn("a progress event was not stored: {reason}", reason=reason, correlation_id=self._id)

    async def _failed(self, reply: Reply, delay: float | None = None, at_least: float = 0.0) -> None:
        """Retry after ``delay`` seconds (None: after the policy's back-off), or dead-letter after the last attempt."""
        policy, delivery = self._context.policy, self._delivery
        if policy.exhausted(delivery.attempt):
            reason = f"{delivery.attempt} attempts failed" if delivery.attempt > 1 else "the attempt failed"
            await self._dead_letter(reason, ReasonClass.ATTEMPTS_EXHAUSTED, reply)
            return
        if delay is None:
            delay = policy.delay(delivery.attempt, self._context.random)
        pause = max(delay, at_least)
        await self._settle(lambda: delivery.retry(pause, reply.error or ""))
        self._context.metrics.retried(self._delivery.request)

    async def _dead_letter(self, reason: str, kind: ReasonClass, reply: Reply) -> None:
        reply = replace(reply, reason_class=kind.value)
        if await self._settle(lambda: self._delivery.dead_letter(reason, reply)):
            self._context.metrics.dead_lettered(self._delivery.request)
            self._context.metrics.finished(self._delivery.request, self._context.clock.seconds())
            self._context.log.warn(
                "dead letter: {reason}: {error}", reason=reason, error=reply.error, correlation_id=self._id
            )

    async def _settle(self, step: Callable[[], Deferred[Any]]) -> Any:
        """Settle the delivery by ``step``. While the store cannot keep it, repeat: the work is done already."""
        while True:
            try:
                return await step()
            except DeliveryClosed as closed:
                self._context.metrics.late()
                self._context.log.warn(
                    "the delivery is closed, and the outcome of its attempt is dropped: {reason}",
                    reason=closed.reason,
                    correlation_id=self._id,
                )
                return False
            except NotDurable as error:
                self._context.log.error(
                    "the outcome of an attempt cannot be stored, which is tried again in {seconds:g} s: {reason}",
                    seconds=SETTLE_AGAIN_SECONDS,
                    reason=error.reason,
                    correlation_id=self._id,
                )
                await deferLater(self._context.clock, SETTLE_AGAIN_SECONDS)

    def _failure(self, started: float, error: Reject | RetryLater) -> Reply:
        return failed(self._blank(Status.FAILED, started), error, self._context.most_result)

    def _blank(self, status: Status, started: float, error: str | None = None) -> Reply:
        now = self._context.clock.seconds()
        return blank(self._id, status, now, self._delivery.attempt, started, error)
