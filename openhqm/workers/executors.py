# -*- test-case-name: tests.workers.test_executors -*-
"""Where handlers run: in threads, in the reactor, in a loop of asyncio, or in processes."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from openhqm.runtime.asyncio_thread import AsyncioThread
from openhqm.runtime.threads import Threads
from openhqm.workers.handlers import Handler, Work
from openhqm.workers.holding import HoldWatch, in_reactor, watched
from openhqm.workers.processes import HandlerProcesses


class ReturnedDeferred(Exception):
    """A function that was called in a thread returned a Deferred, which is not made for that. The text has the cure."""


class AwaitsDeferred(Exception):
    """A coroutine awaits a Deferred where asyncio runs. The text has the cure."""


class Executors:
    """Threads, a loop of asyncio and processes for the handlers of one worker pool: ``slots`` of each at most.

    Each begins with the first request for it. ``most_result`` is the largest answer of a process in bytes.
    """

    def __init__(self, reactor: Any, slots: int, most_result: int) -> None:
        self._threads = Threads(reactor, "openhqm-handlers", slots)
        self._asyncio = AsyncioThread(reactor, "openhqm-asyncio")
        self._processes = HandlerProcesses(reactor, slots, most_result)
        self._watch = HoldWatch()

    def start(self) -> None:
        """Let handlers run."""
        self._threads.start()

    def close(self) -> Deferred[None]:
        """End the processes. Fires when they have ended."""
        return self._processes.stop()

    def stop(self) -> None:
        """Join the threads, except those that are still at work: they end with the process."""
        self._threads.stop()
        self._asyncio.stop()

    def bind(self, path: str, handler: Handler, executor: str | None) -> Handler:
        """``handler`` as it is called in the reactor, where ``executor`` or its kind says that it runs.

        ``path`` names it in the log. ``executor`` None: a plain function runs in a thread, an ``async def`` and a
        function that returns a Deferred in the reactor.
        """
        if executor == "process":
            raise ValueError("a handler of a process is not imported here")
        if is_async(handler):
            return self._in_asyncio(handler) if executor == "asyncio" else in_reactor(handler, path, self._watch)
        if executor == "reactor" or (executor != "thread" and returns_deferred(handler)):
            return in_reactor(handler, path, self._watch)
        return self._in_thread(handler, path, executor)

    def renew_processes(self) -> None:
        """From now on the handlers of processes are those that are in their files now."""
        self._processes.renew()

    def in_process(self, path: str) -> Handler:
        """The handler at ``path``, which is imported and runs in another process."""
        return partial(self._processes.run, path)

    def _in_asyncio(self, handler: Handler) -> Handler:
        return lambda work: self._asyncio.run(lambda: _without_deferreds(handler(work)))

    def _in_thread(self, handler: Handler, path: str, executor: str | None) -> Handler:
        def returned(answer: Any) -> Any:
            if inspect.iscoroutine(answer):  # nothing of it has run yet
                if executor == "asyncio":
                    return self._asyncio.run(lambda: _without_deferreds(answer))
                return Deferred.fromCoroutine(watched(answer, path, self._watch))
            if isinstance(answer, _Unfired):
                raise ReturnedDeferred(
                    f"{path} was called in a thread and returned a Deferred, but Twisted is used in the reactor's "
                    "thread only: set worker.executor: reactor, or annotate the function with -> Deferred"
                )
            return answer

        def in_thread(work: Work) -> Deferred[Any]:
            return self._threads.run(lambda: _seen(handler(work))).addCallback(returned)

        return in_thread


def is_async(handler: Handler) -> bool:
    """Whether ``handler`` is an ``async def``: a function, a partial of one, or an object whose ``__call__`` is one."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


def returns_deferred(handler: Handler) -> bool:
    """Whether ``handler`` says that it returns a Deferred: by its annotation, or because of `inlineCallbacks`."""
    function: Any = handler
    while isinstance(function, partial):
        function = function.func
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = function.__call__
    annotation = getattr(function, "__annotations__", {}).get("return")
    return "Deferred" in str(annotation) or inspect.isgeneratorfunction(inspect.unwrap(function))


async def _without_deferreds(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What ``coroutine`` returns in a loop of asyncio. `AwaitsDeferred` where it awaits a Deferred."""
    try:
        return await coroutine
    except RuntimeError as error:
        if "got bad yield: <Deferred" not in str(error):
            raise
        raise AwaitsDeferred(
            "it awaits a Deferred, which fires in the reactor only: set worker.executor: reactor, or await what "
            "asyncio has"
        ) from error


class _Unfired:
    """Stands for a Deferred that has not fired."""


def _seen(answer: Any) -> Any:
    """``answer``, looked at in the handler's thread: one that breaks when it is asked for its class fails there."""
    if isinstance(answer, Deferred):
        if not answer.called or answer.paused:
            return _Unfired()
        results: list[Any] = []
        answer.addBoth(results.append)
        return results[0]
    isinstance(answer, Failure)  # Twisted will ask
    return answer
