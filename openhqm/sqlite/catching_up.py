# -*- test-case-name: tests.queue.test_changed_limits,tests.sqlite.test_unbegun -*-
"""Rows of the embedded file that new limits ask for, and the old ones did not: written once the limits have changed."""

from __future__ import annotations

from collections.abc import Callable

import apsw
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.sqlite.file import SqliteFile


class CatchingUp:
    """``exchange`` writes the rows as they are to be, within an operation of ``file``.

    What is written for a request before that is written in vain. Where the disk does not take it, it is tried again
    with each `run`, which belongs into a sweep.
    """

    def __init__(self, file: SqliteFile, exchange: Callable[[apsw.Connection], None]) -> None:
        self._file = file
        self._exchange = exchange
        self._changes = self._done = 0

    def changed(self) -> Deferred[int | None]:
        """Other limits hold from now on."""
        self._changes += 1
        return self._file.write(self.run).addErrback(_is_tried_again)

    def run(self, connection: apsw.Connection, now: float = 0.0) -> int:
        """Within an operation of the file: exchange the rows where that is due."""
        changes = self._changes
        if self._done != changes:
            self._exchange(connection)
            self._file.after_commit(lambda: self._is_done(changes))
        return 0

    def _is_done(self, changes: int) -> None:
        self._done = changes


def _is_tried_again(failure: Failure) -> None:
    failure.trap(NotDurable)
