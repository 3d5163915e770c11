# -*- test-case-name: tests.workers.test_executors -*-
"""Handlers in the reactor's thread: one that holds it is named in the log, and one that uses asyncio gets the cure."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

MOST_SECONDS = 1.0
"""How long a handler may hold the reactor, in which everything else waits, before the log names it."""
WARN_SECONDS = 60.0
_SIGNS_OF_ASYNCIO = (
    "no running event loop",
    "no current event loop",
    "await wasn't used with future",
    "inside a task",
    "unknown async library",
)


class NeedsAsyncio(Exception):
    """A coroutine uses asyncio where no loop of asyncio runs. The text has the cure."""


@attrs.define
class _Held:
    warned: float = float("-inf")
    count: int = 0
    longest: float = 0.0


class HoldWatch:
    """Warns of each handler that has held the reactor for more than a second, once a minute, with the count.

    ``seconds`` measures, in seconds.
    """

    _log = Logger()

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._held: dict[str, _Held] = {}

    def note(self, name: str, began: float) -> None:
        """The handler ``name`` had the reactor from ``began`` until now."""
        now = self.seconds()
        if now - began <= MOST_SECONDS:
            return
        held = self._held.setdefault(name, _Held())
        held.count += 1
        held.longest = max(held.longest, now - began)
        if now - held.warned >= WARN_SECONDS:
            self._log.warn(
                "the handler {handler} has held the reactor for {seconds:.1f} s, in which nothing else in this process "
                "ran ({count} times since the last such warning): run it in a thread or in a process (worker.executor)",
                handler=name,
                seconds=held.longest,
                count=held.count,
            )
            self._held[name] = _Held(warned=now)


def in_reactor(handler: Callable[[Any], Any], name: str, watch: HoldWatch) -> Callable[[Any], Any]:
    """``handler``, called in the reactor's thread. The coroutine that it may return runs there, too."""

    def call(work: Any) -> Any:
        began = watch.seconds()
        try:
            answer = handler(work)
        finally:
            watch.note(name, began)
        return watched(answer, name, watch) if isinstance(answer, Coroutine) else answer

    return call


async def watched(coroutine: Coroutine[Any, Any, Any], name: str, watch: HoldWatch) -> Any:
    """What ``coroutine`` returns. `NeedsAsyncio` where it cannot run in the reactor."""
    try:
        return await _Segments(coroutine, name, watch)
    except (RuntimeError, LookupError) as error:  # sniffio, on which httpx rests, raises a kind of each
        if any(sign in str(error) for sign in _SIGNS_OF_ASYNCIO):
            raise _needs_asyncio(str(error)) from error
        raise


class _Segments(Generator[Any, Any, Any]):
    """Runs a coroutine from each ``await`` to the next one, and measures how long that takes."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], name: str, watch: HoldWatch) -> None:
        self._coroutine = coroutine
        self._name = name
        self._watch = watch

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def send(self, value: Any) -> Any:
        return self._run(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        return self._run(self._coroutine.throw, *error)

    def close(self) -> None:
        self._coroutine.close()

    def _run(self, step: Callable[..., Any], *arguments: Any) -> Any:
        began = self._watch.seconds()
        try:
            awaited = step(*arguments)
        finally:
            self._watch.note(self._name, began)
        if isinstance(awaited, Deferred):
            return awaited
        # A future of asyncio. Raised here in the coroutine, so that its `finally` blocks run.
        return self._run(self._coroutine.throw, _needs_asyncio(f"it awaits no Deferred but a {type(awaited).__name__}"))


def _needs_asyncio(reason: str) -> NeedsAsyncio:
    return NeedsAsyncio(f"{reason}: the reactor runs no asyncio. Set worker.executor: asyncio, or await Deferreds")
