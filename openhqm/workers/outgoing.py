# -*- test-case-name: tests.workers.test_egress -*-
"""The time limit of one call over HTTP, and what its failure means for the attempt."""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import DestinationRefused, Reject, RetryLater
from openhqm.http1.failures import AnswerTooLong, NotConnected, describe_failure, of_tls, root_cause, was_cancelled
from openhqm.runtime.time_limits import TimeLimits
from openhqm.workers.handlers import AttemptTimedOut, Unreachable

T = TypeVar("T")


class Outgoing(Generic[T]):
    """One call of ``name``, which gets ``seconds`` for its answer, for the request ``correlation_id``."""

    _log = Logger()

    def __init__(self, name: str, correlation_id: str, seconds: float, limits: TimeLimits) -> None:
        self._name = name
        self._id = correlation_id
        self._seconds = seconds
        self._limits = limits
        self._late = False
        self._answer: Deferred[T] | None = None

    def within_limit(self, answer: Deferred[T]) -> Deferred[T]:
        """``answer``, which is cancelled when the time is over."""
        if not answer.called or answer.paused:
            self._answer = answer
            self._limits.add(self._seconds, self._give_up)
            answer.addBoth(self._over)
        return answer

    def explain(self, failure: Failure) -> NoReturn:
        """Raise what a failure of the connection, the name, the certificate or the parser means for the attempt."""
        error = failure.value
        assert error is not None
        limit = f"{round(self._seconds, 3):.12g} s"
        reason = root_cause(error)
        if isinstance(error, Reject | RetryLater):
            raise error
        if isinstance(error, ValueError):  # no attempt can send it
            raise Reject(f"the request cannot be sent to {self._name}: {error}") from None
        if isinstance(reason, AnswerTooLong):
            raise Reject(str(reason)) from None
        if isinstance(reason, DestinationRefused):  # the reason is for the operator alone
            self._log.warn("refused to call: {reason}", reason=reason.reason, correlation_id=self._id)
        if self._late and isinstance(error, NotConnected):
            raise Unreachable(f"{self._name} cannot be reached: not connected within {limit}", timed_out=True) from None
        if self._late:
            raise AttemptTimedOut(f"no answer within {limit}") from None
        if was_cancelled(error):
            raise CancelledError() from None
        if isinstance(error, NotConnected) and not of_tls(error):
            raise Unreachable(f"{self._name} cannot be reached: {describe_failure(error)}") from None
        raise RetryLater(None, f"{self._name} could not be called: {describe_failure(error)}") from None

    def _give_up(self) -> None:
        self._late = True
        if self._answer is not None:
            self._answer.cancel()

    def _over(self, result: Any) -> Any:
        self._answer = None
        self._limits.remove(self._give_up)
        return result
