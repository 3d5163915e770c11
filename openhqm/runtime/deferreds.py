# -*- test-case-name: tests.runtime.test_deferreds -*-
"""Coroutines as Deferreds: public functions return a Deferred, and use ``await`` inside."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")


def deferred(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Deferred[T]]:
    """Decorate an ``async def``: calling it starts the coroutine at once, and returns a Deferred of its result."""

    @wraps(function)
    def start(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return Deferred.fromCoroutine(function(*args, **kwargs))

    return start


class Running(Generic[T]):
    """Runs a coroutine without a Deferred of its own, for hot paths.

    The coroutine runs at once, as far as it can. ``done`` is called with its result, or ``failed`` with its failure:
    perhaps before the constructor returns.
    """

    __slots__ = ("_coroutine", "_done", "_failed", "_waiting")

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], done: Callable[[T], object], failed: Callable[[Failure], object]
    ) -> None:
        self._coroutine = coroutine
        self._done = done
        self._failed = failed
        self._waiting: Deferred[Any] | None = None
        self._resume(None)

    @property
    def over(self) -> bool:
        """Whether the coroutine has ended."""
        return self._waiting is None

    def cancel(self) -> None:
        """Cancel the Deferred that the coroutine waits for."""
        if self._waiting is not None:
            self._waiting.cancel()

    def _resume(self, result: object) -> None:
        self._waiting = None
        try:
            if isinstance(result, Failure):
                waiting = result.throwExceptionIntoGenerator(self._coroutine)
            else:
                # The coroutine takes the result from the Deferred that it awaits, which has fired.
                waiting = self._coroutine.send(None)
        except StopIteration as finished:
            self._done(finished.value)
        except BaseException:  # the caller gets every exception, as a Failure
            self._failed(Failure())
        else:
            self._waiting = waiting
            waiting.addBoth(self._resume)


def shielded(coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Start a coroutine, and fire with its result. Cancelling the Deferred does not cancel the coroutine."""
    result: Deferred[T] = Deferred()
    Running(coroutine, result.callback, result.errback)
    return result


class Stoppable(Deferred[T]):
    """A Deferred for work that can be told to stop. Cancelling calls ``stop``; it fires once the work has ended."""

    def __init__(self, stop: Callable[[], None]) -> None:
        super().__init__()
        self._stop = stop

    def cancel(self) -> None:
        """Tell the work to stop, unless it has ended."""
        if not self.called:
            self._stop()
