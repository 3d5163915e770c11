# -*- test-case-name: tests.delivery.test_keep_alive -*-
"""Signs of life on idle streams, which keep connections open: each second on a part of them, not on all at once."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

PARTS = 15
"""How many seconds pass between two of them on a stream."""


class Idle(Protocol):
    """A stream."""

    def keep_alive(self) -> object:
        """Write a sign of life."""


class KeepAlive:
    """Calls `Idle.keep_alive` of each stream every `PARTS` seconds."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._parts: list[set[Idle]] = [set() for _ in range(PARTS)]
        self._next = 0
        self._timer: Any = None
        self._count = 0

    def add(self, stream: Idle) -> None:
        """Begin with ``stream``."""
        min(self._parts, key=len).add(stream)
        self._count += 1
        if self._timer is None:
            self._timer = self._clock.callLater(1.0, self._tell)

    def discard(self, stream: Idle) -> None:
        """No more to ``stream``."""
        for part in self._parts:
            if stream in part:
                part.remove(stream)
                self._count -= 1
        if not self._count and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        part = self._parts[self._next]
        self._next = (self._next + 1) % PARTS
        self._timer = self._clock.callLater(1.0, self._tell)
        for stream in list(part):
            stream.keep_alive()
