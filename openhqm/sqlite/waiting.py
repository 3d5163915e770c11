# -*- test-case-name: tests.sqlite.test_waiting -*-
"""The operations that wait for the next transactions of the embedded file, and which of them belong into one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import apsw
import attrs
from twisted.python.failure import Failure

T = TypeVar("T")
Operation = Callable[[apsw.Connection], T]


class Caller(Protocol):
    """Who has asked for an operation: a `Deferred`, or what acts as one. ``called``: it needs not be told any more."""

    @property
    def called(self) -> bool: ...

    def callback(self, result: Any, /) -> None: ...

    def errback(self, error: Failure | BaseException, /) -> None: ...


@attrs.frozen
class Refused:
    """What an operation returns that has written nothing: its caller gets ``error``.

    Where an operation raises, all of its transaction is undone, and the others are run once more.
    """

    error: Exception


@attrs.define(eq=False)
class Step:
    """What belongs into one transaction. ``size``: how much it has, an operation for many counted as many.

    ``taken``: its transaction has begun, or is about to.
    """

    size: int = 0
    taken: bool = False


class Waiting:
    """They are taken in the order in which they were asked for.

    ``size`` is how many they are, an operation for many counted as many. ``step`` is the one that is under way, or
    None.
    """

    def __init__(self) -> None:
        self._entries: list[tuple[Operation[Any], Caller, Step | None]] = []
        self.size = 0
        self.step: Step | None = None

    def add(self, operation: Operation[Any], done: Caller, step: Step | None = None) -> None:
        """One more operation. ``step``: what it belongs to, where that is not the one under way."""
        step = step or self.step
        self._entries.append((operation, done, step))
        self.size += 1
        if step is not None:
            step.size += 1

    def one_more(self, step: Step) -> None:
        """An operation of ``step`` has one more to do."""
        self.size += 1
        step.size += 1

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is added within, without waiting, belongs into one transaction."""
        self.step = Step()
        try:
            yield
        finally:
            self.step = None

    def take(self, most: int) -> list[tuple[Operation[Any], Caller]]:
        """About ``most`` for the next transaction; more where they belong together."""
        count = size = 0
        last: Step | None = None
        for _, _, step in self._entries:
            if step is None or step is not last:
                if size >= most:
                    break
                size += 1 if step is None else step.size
                if step is not None:
                    step.taken = True
            last = step
            count += 1
        self.size -= size
        taken, self._entries = self._entries[:count], self._entries[count:]
        return [(operation, done) for operation, done, _ in taken]
