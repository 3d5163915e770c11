# -*- test-case-name: tests.sqlite.test_waiting -*-
"""The operations that wait for the next transactions of the embedded file, and which of them belong into one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import apsw
import attrs
from twisted.internet.defer import Deferred

T = TypeVar("T")
Operation = Callable[[apsw.Connection], T]


@attrs.frozen
class Refused:
    """What an operation returns that has written nothing: its caller gets ``error``.

    Where an operation raises, all of its transaction is undone, and the others are run once more.
    """

    error: Exception


class Waiting:
    """They are taken in the order in which they were asked for."""

    def __init__(self) -> None:
        self._entries: list[tuple[Operation[Any], Deferred[Any], bool]] = []
        self._together = self._joins = False

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, operation: Operation[T], done: Deferred[T]) -> None:
        """One more."""
        self._entries.append((operation, done, self._joins))
        self._joins = self._together

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is added within, without waiting, belongs into one transaction."""
        self._together = True
        try:
            yield
        finally:
            self._together = self._joins = False

    def take(self, most: int) -> list[tuple[Operation[Any], Deferred[Any]]]:
        """About ``most`` for the next transaction; more where they belong together."""
        count = most
        while count < len(self._entries) and self._entries[count][2]:
            count += 1
        taken, self._entries = self._entries[:count], self._entries[count:]
        return [(operation, done) for operation, done, _ in taken]
