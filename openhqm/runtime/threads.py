# -*- test-case-name: tests.runtime.test_threads -*-
"""Threads that keep no process from ending: pools of our own, and the reactor's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from openhqm.runtime.forks import in_this_process

T = TypeVar("T")


class Uncancellable(Deferred[T]):
    """A Deferred for work that cannot be interrupted: cancelling it does nothing."""

    def cancel(self) -> None:
        """Do nothing: a thread runs until its function returns."""


class _DaemonThread(threading.Thread):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, daemon=True, **kwargs)


class _DaemonPool(ThreadPool):
    # A function that never returns must not keep the process from ending.
    threadFactory = _DaemonThread

    def callInThreadWithCallback(self, onResult: Any, func: Callable[..., Any], *args: Any, **kw: Any) -> None:
        super().callInThreadWithCallback(onResult, in_this_process, partial(func, *args, **kw))


MOST_OF_HANDLERS = 64
"""How many threads handlers can use at once by ``deferToThread``. More functions wait for one of these."""


def replace_pool(reactor: Any) -> None:
    """Give ``reactor``, which does not run yet, another pool for ``deferToThread``: one that it does not wait for.

    Its own has ten threads, and at its end the reactor waits until their functions have returned.
    """
    reactor.threadpool = pool = _DaemonPool(0, MOST_OF_HANDLERS, "openhqm-reactor")
    reactor.callWhenRunning(pool.start)


class Threads:
    """A pool of at most ``most`` threads."""

    def __init__(self, reactor: IReactorFromThreads, name: str, most: int) -> None:
        self._reactor = reactor
        self._pool = _DaemonPool(0, most, name)
        self._running = 0

    def start(self) -> None:
        """Start the pool."""
        self._pool.start()

    def stop(self) -> None:
        """Join the threads, unless one is still at work: daemon threads end with the process."""
        if not self._running:
            self._pool.stop()

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """Run ``function`` in a thread. Fires in the reactor's thread with its result or failure."""
        done: Deferred[T] = Uncancellable()
        self._running += 1

        def finished(success: bool, result: Any) -> None:
            self._reactor.callFromThread(deliver, result)

        def deliver(result: Any) -> None:
            self._running -= 1
            done.callback(result)  # a Failure makes the Deferred fail

        self._pool.callInThreadWithCallback(finished, function)
        return done


class SerialThread:
    """One thread that runs one function after the other: for work that must never overlap, without a lock."""

    def __init__(self, reactor: IReactorFromThreads, name: str) -> None:
        self._reactor = reactor
        self._name = name
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """Run ``function`` after those passed before. Fires in the reactor's thread with its result or failure."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        done: Deferred[T] = Uncancellable()
        self._jobs.put((function, done))
        return done

    def stop(self) -> None:
        """Finish the functions passed so far, and join the thread."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, done = job
            try:
                result = function()
            except BaseException:  # delivered to the caller, in the reactor's thread
                self._reactor.callFromThread(done.errback, Failure())
            else:
                self._reactor.callFromThread(done.callback, result)
