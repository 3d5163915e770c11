# -*- test-case-name: tests.sqlite.test_appends,tests.sqlite.test_waiting,tests.queue.test_contracts -*-
"""The messages that are added to a channel of the embedded file while others wait, by one operation for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import apsw
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from openhqm.messages import Acceptance
from openhqm.sqlite.claims import ClaimRow, take_claims
from openhqm.sqlite.file import MOST_IN_ONE_COMMIT, SqliteFile
from openhqm.sqlite.waiting import Refused, Step

T = TypeVar("T")
Row = tuple[int, float, bytes]
"""Key, time and body of a message."""
INSERT = "INSERT INTO messages VALUES (?, ?, ?)"


class Appends:
    """Those that are accepted one after the other until their operation is taken, or within one step.

    ``added`` is called with how many there are, once they are on disk.
    """

    __slots__ = ("_added", "_callers", "_claims", "_error", "_file", "_rows", "_step", "_within", "called")

    def __init__(self, file: SqliteFile, added: Callable[[int], None]) -> None:
        self._file = file
        self._added = added
        self._within = file.waiting.step
        self._step = self._within or Step()
        self._rows: list[Row] = []
        self._claims: list[ClaimRow] = []
        self._callers: list[tuple[Deferred[Any], int, Any]] = []
        self._error: Failure | BaseException | None = None
        self.called = False
        file.write_for(self, self._add_all, self._step)

    def takes(self, key: int) -> bool:
        """Whether it can have the message, too.

        A fetch goes by the keys: were another operation to add the one before, the fetch might pass over that for good.
        """
        return (
            self._within is self._file.waiting.step
            and not self._step.taken
            and key == self._rows[-1][0] + 1
            and (self._within is not None or len(self._rows) < MOST_IN_ONE_COMMIT)
        )

    def add(self, row: Row, result: T, claim: ClaimRow | None) -> Deferred[T]:
        """One more. Fires with ``result`` once it is on disk, or with the acceptance of the request that has its claim.

        `NotDurable`; `IdempotencyConflict`, where that is another request.
        """
        if self._error is not None:
            return fail(self._error)
        done: Deferred[T] = Deferred()
        if claim is not None:
            self._claims.append(claim)
        if self._rows:
            self._file.waiting.one_more(self._step)
        self._rows.append(row)
        self._callers.append((done, row[0], result))
        return done

    def _add_all(self, connection: apsw.Connection) -> Mapping[int, Acceptance | Refused]:
        rows = self._rows
        earlier = take_claims(connection, self._file.ids, self._claims) if self._claims else {}
        if earlier:
            rows = [row for row in rows if row[0] not in earlier]
        connection.executemany(INSERT, rows)
        self._file.after_commit(partial(self._added, len(rows)))
        return earlier

    def callback(self, earlier: Mapping[int, Acceptance | Refused]) -> None:
        """They are on disk, but for those that are an earlier request or none."""
        self.called = True
        for done, key, result in self._let_go():
            outcome = earlier.get(key, result) if earlier else result
            if done.called:  # its caller is gone
                continue
            if type(outcome) is Refused:
                done.errback(outcome.error)
            else:
                done.callback(outcome)

    def errback(self, error: Failure | BaseException) -> None:
        """None of them is."""
        self.called = self._step.taken = True
        self._error = error
        for done, _, _ in self._let_go():
            if not done.called:
                done.errback(error)

    def _let_go(self) -> list[tuple[Deferred[Any], int, Any]]:
        """The callers. The channel knows this object until the next one."""
        callers, self._callers, self._rows, self._claims = self._callers, [], [], []
        return callers
