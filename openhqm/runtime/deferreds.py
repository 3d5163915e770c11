# -*- test-case-name: tests.runtime.test_deferreds -*-
"""Deferred at the seam, ``await`` inside."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")


def deferred(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Deferred[T]]:
    """Make an ``async def`` start when it is called, and return a Deferred."""

    @wraps(function)
    def start(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return Deferred.fromCoroutine(function(*args, **kwargs))

    return start


class Running(Generic[T]):
    """A coroutine on its way, for where a Deferred would be made and thrown away at every turn.

    It runs at once, as far as it can; ``done`` or ``failed`` may be called before this is made.
    """

    __slots__ = ("_coroutine", "_done", "_failed", "_waiting")

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], done: Callable[[T], object], failed: Callable[[Failure], object]
    ) -> None:
        self._coroutine = coroutine
        self._done = done
        self._failed = failed
        self._waiting: Deferred[Any] | None = None
        self._go_on(None)

    @property
    def over(self) -> bool:
        """Whether it has come to its end."""
        return self._waiting is None

    def cancel(self) -> None:
        """Cancel what it waits for."""
        if self._waiting is not None:
            self._waiting.cancel()

    def _go_on(self, result: object) -> None:
        self._waiting = None
        try:
            if isinstance(result, Failure):
                waiting = result.throwExceptionIntoGenerator(self._coroutine)
            else:
                # The coroutine takes the result from the Deferred that it awaits, which has it now.
                waiting = self._coroutine.send(None)
        except StopIteration as finished:
            self._done(finished.value)
        except BaseException:  # whatever it is, it is for whoever asked
            self._failed(Failure())
        else:
            self._waiting = waiting
            waiting.addBoth(self._go_on)


def shielded(coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
    """What the coroutine comes to. Cancelling gives up the waiting for it, and nothing else."""
    answer: Deferred[T] = Deferred()
    Running(coroutine, answer.callback, answer.errback)
    return answer
