# -*- test-case-name: tests.runtime.test_asyncio_thread -*-
"""A loop of asyncio in a thread of its own, for coroutines that need one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from openhqm.runtime.deferreds import Stoppable
from openhqm.runtime.forks import end_forks_in

T = TypeVar("T")

STOP_SECONDS = 2.0


class AsyncioThread:
    """The thread and its loop begin with the first coroutine."""

    def __init__(self, reactor: IReactorFromThreads, name: str) -> None:
        self._reactor = reactor
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """Call ``make`` in the loop's thread, and run there the coroutine that it returns.

        Fires in the reactor's thread with its result or failure. Cancelling it cancels the task: it fires once that
        has ended, with Twisted's `CancelledError` where nothing else came of it.
        """
        loop = self._loop or self._start()
        task: asyncio.Task[T] | None = None
        cancelled = False

        def cancel() -> None:
            nonlocal cancelled
            cancelled = True
            loop.call_soon_threadsafe(lambda: task and task.cancel())

        done: Deferred[T] = Stoppable(cancel)

        def deliver(result: object) -> None:
            self._reactor.callFromThread(done.callback, result)  # a Failure makes the Deferred fail

        def ended(of: asyncio.Task[T]) -> None:
            if of.cancelled() and cancelled:
                deliver(Failure(CancelledError()))
                return
            try:
                deliver(of.result())
            except BaseException:  # of the coroutine: the caller gets it
                deliver(Failure())

        def begin() -> None:
            nonlocal task
            if cancelled:
                deliver(Failure(CancelledError()))
                return
            try:
                task = loop.create_task(make())
            except BaseException:  # of `make`
                deliver(Failure())
            else:
                task.add_done_callback(ended)

        loop.call_soon_threadsafe(begin)
        return done

    def stop(self) -> None:
        """End the loop and join the thread, unless a coroutine does not let go of it: it ends with the process."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_SECONDS)
            self._loop = self._thread = None

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = loop = asyncio.new_event_loop()
        end_forks_in(loop)
        self._thread = threading.Thread(target=_run, args=(loop,), name=self._name, daemon=True)
        self._thread.start()
        return loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        with suppress(RuntimeError):  # of a coroutine that stops the loop itself
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
