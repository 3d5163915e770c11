# -*- test-case-name: tests.storeless.test_following -*-
"""Writing down in the embedded file what workers without a store tell. The first ending wins, whichever attempt's."""

from __future__ import annotations

import apsw
from twisted.internet.defer import Deferred, fail

from openhqm.codec import decode_request
from openhqm.errors import UnknownRequest
from openhqm.messages import DeadLetter, Request
from openhqm.policy.steps import ENDED, PROCESSING, Step
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.sqlite.sql import fetch_one
from openhqm.sqlite.store import Ledger as Store


class SqliteSteps:
    """``store`` and ``ledger`` are those of the same file."""

    def __init__(self, file: SqliteFile, store: Store, ledger: SqliteLedger) -> None:
        self._file = file
        self._store = store
        self._ledger = ledger

    def bury(self, letter: DeadLetter) -> Deferred[None]:
        """Add a dead letter for what is not one of the requests in these books; `NotDurable`."""
        return self._ledger.bury(letter)

    def note(self, step: Step) -> Deferred[None]:
        """The step is in the books, once, unless its request has ended or was taken back.

        `UnknownRequest` where the id was not given out here, `ValueError` past the limits of a history, `NotDurable`.
        """
        key = self._file.ids.number(step.correlation_id)
        if key is None:
            return fail(UnknownRequest(step.correlation_id))
        return self._file.write(lambda connection: self._note(connection, key, step))

    def _note(self, connection: apsw.Connection, key: int, step: Step) -> None:
        known = fetch_one(connection, "SELECT body FROM messages WHERE key = ?", (key,))
        if known is None or self._store.has_ended(connection, key):
            return
        if step.type == ENDED:
            self._end(connection, key, decode_request(known[0]), step)
            return
        connection.execute("INSERT OR IGNORE INTO told VALUES (?, ?)", (key, step.name))
        if not connection.changes():
            return
        if step.type == PROCESSING:
            row = fetch_one(connection, "SELECT attempt FROM inflight WHERE key = ?", (key,))
            self._ledger.count(connection, key, max(row[0] if row else 0, int(step.detail.get("attempt", 0))))
        self._store.note_event(connection, key, step.type, dict(step.detail), step.at)

    def _end(self, connection: apsw.Connection, key: int, request: Request, step: Step) -> None:
        assert step.reply is not None
        letter = None if step.reason is None else DeadLetter(request, step.reason, step.reply, step.at)
        self._ledger.finish(connection, key, step.reply, letter)
