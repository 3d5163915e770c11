# -*- test-case-name: tests.sqlite.test_waiting,tests.queue.test_contracts -*-
"""The messages that one step adds to a channel of the embedded file, by one operation for all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import apsw
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from openhqm.sqlite.file import SqliteFile

T = TypeVar("T")
Row = tuple[int, float, bytes]
"""Key, time and body of a message."""
INSERT = "INSERT INTO messages VALUES (?, ?, ?)"


class Appends:
    """``added`` is called with how many there are, once they are on disk."""

    def __init__(self, file: SqliteFile, added: Callable[[int], None]) -> None:
        self._added = added
        self._rows: list[Row] = []
        self._callers: list[tuple[Deferred[Any], Any]] = []
        self._failure: Failure | None = None
        self._after_commit = file.after_commit
        file.write(self._add_all).addCallbacks(self._done, self._failed)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row, result: T) -> Deferred[T]:
        """One more, within the step. Fires with ``result`` once it is on disk; `NotDurable`."""
        if self._failure is not None:
            return fail(self._failure.value)
        done: Deferred[T] = Deferred()
        self._rows.append(row)
        self._callers.append((done, result))
        return done

    def _add_all(self, connection: apsw.Connection) -> None:
        connection.executemany(INSERT, self._rows)
        self._after_commit(partial(self._added, len(self._rows)))

    def _done(self, _: None) -> None:
        for done, result in self._callers:
            if not done.called:  # its caller may be gone
                done.callback(result)

    def _failed(self, failure: Failure) -> None:
        self._failure = failure
        for done, _ in self._callers:
            if not done.called:
                done.errback(failure.value)
