# -*- test-case-name: tests.storeless.test_steps,tests.storeless.test_workers -*-
"""Writing down in the embedded file what workers without a store report. The first ending wins, whichever attempt's."""

from __future__ import annotations

import apsw
from twisted.internet.defer import Deferred, fail

from openhqm.codec import decode_request
from openhqm.errors import UnknownRequest
from openhqm.messages import DeadLetter, Request
from openhqm.policy.steps import ENDED, PROCESSING, PROGRESS, RELEASED, RETRYING, Step
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.sql import fetch_one


class SqliteSteps:
    """``store`` and ``ledger`` are those of the same file."""

    def __init__(self, file: SqliteFile, store: SqliteResults, ledger: SqliteLedger) -> None:
        self._file = file
        self._store = store
        self._ledger = ledger

    def reject(self, letter: DeadLetter) -> Deferred[None]:
        """Add a dead letter for a message that is not one of these requests; `NotDurable`."""
        return self._ledger.reject(letter)

    def note(self, step: Step) -> Deferred[None]:
        """The step is in the ledger, once, unless its request has ended or was taken back.

        `UnknownRequest` where the id was not given out here, `ValueError` past the limits of a history, `NotDurable`.
        """
        key = self._file.ids.number(step.correlation_id)
        if key is None:
            return fail(UnknownRequest(step.correlation_id))
        self._ledger.has_workers = True
        return self._file.write(lambda connection: self._note(connection, key, step))

    def _note(self, connection: apsw.Connection, key: int, step: Step) -> None:
        known = fetch_one(connection, "SELECT body FROM messages WHERE key = ?", (key,))
        if known is None or self._store.has_ended(connection, key):
            return
        if step.type == ENDED:
            self._end(connection, key, decode_request(known[0]), step)
            return
        connection.execute("INSERT OR IGNORE INTO steps VALUES (?, ?)", (key, step.name))
        if not connection.changes():
            return
        if step.type == PROGRESS:
            self._store.note_event(connection, key, PROGRESS, dict(step.detail), step.at)
            return
        # A worker with an older message works in vain, unless it comes to an ending first.
        if step.generation >= self._ledger.outbox.generation(connection, key):
            self._count(connection, key, step)
        if step.type == PROCESSING:
            self._store.note_event(connection, key, PROCESSING, {"attempt": step.attempt}, step.at)

    def _count(self, connection: apsw.Connection, key: int, step: Step) -> None:
        """The message that counts is being worked on, or another one is to be published in its place.

        The attempt is counted again with a retry: a product that is not strict about order may have delivered the
        retry before the beginning.
        """
        row = fetch_one(connection, "SELECT attempt FROM inflight WHERE key = ?", (key,))
        counted = row[0] if row else 0
        if step.type == RELEASED and counted <= step.attempt:
            self._ledger.count_attempt(connection, key, max(0, step.attempt - 1))
        else:
            self._ledger.count_attempt(connection, key, max(counted, step.attempt))
        if step.type == RETRYING:
            # The worker's clock may be ahead of ours; and this process may have been down since.
            due = min(step.at, self._ledger.now()) + step.delay
            self._ledger.note_retry(connection, key, step.attempt, due, step.reason or "", step.at)
        elif step.type == RELEASED:
            self._ledger.outbox.publish_again(connection, key, 0.0)

    def _end(self, connection: apsw.Connection, key: int, request: Request, step: Step) -> None:
        assert step.reply is not None
        letter = None if step.reason is None else DeadLetter(request, step.reason, step.reply, step.at)
        self._ledger.finish(connection, key, step.reply, letter)
