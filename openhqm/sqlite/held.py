# -*- test-case-name: tests.queue.test_contracts -*-
"""Follow-ups in the embedded file: requests that are held back until their parent has ended.

One that is held back is its record and nothing else. The ending of its parent writes the reply into it, and puts it
where a request waits. All of this runs inside an operation of `SqliteFile.write`.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw
from msgspec.structs import replace
from twisted.internet.interfaces import IReactorTime

from openhqm.codec import decode_request, encode_request
from openhqm.messages import Reply, Request, Submission
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.load import SqliteLoad
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.sql import fetch_all

MakeDue = Callable[[apsw.Connection, int, Request, float], None]


class Held:
    """``make_due`` is called with a request that is one from now on, to put it where it waits until a time."""

    def __init__(
        self, file: SqliteFile, store: SqliteResults, clock: IReactorTime, load: SqliteLoad, make_due: MakeDue
    ) -> None:
        self._file = file
        self._load = load
        self._store = store
        self._clock = clock
        self._make_due = make_due
        store.within_ending.append(self._ended)

    def add(self, connection: apsw.Connection, parent: int, key: int) -> None:
        """The request ``key`` is held back until ``parent`` has ended."""
        connection.execute("INSERT INTO held VALUES (?, ?)", (parent, key))

    def forget(self, connection: apsw.Connection, parent: int) -> None:
        """The parent was taken back, and its follow-ups with it."""
        for (key,) in fetch_all(connection, "DELETE FROM held WHERE parent = ? RETURNING key", (parent,)):
            self._load.remove(connection, key)
            connection.execute("DELETE FROM messages WHERE key = ?", (key,))

    def _ended(self, connection: apsw.Connection, parent: int, reply: Reply) -> None:
        keys = fetch_all(connection, "SELECT key FROM held WHERE parent = ? ORDER BY key", (parent,))
        if not keys:
            return
        connection.execute("DELETE FROM held WHERE parent = ?", (parent,))
        for (key,) in keys:
            self.let_go(connection, key, lambda submission: replace(submission, parent_reply=reply, not_before=None))

    def let_go(
        self,
        connection: apsw.Connection,
        key: int,
        change: Callable[[Submission], Submission],
        due: float = 0.0,
    ) -> None:
        """What was held back is a request of this time, with what ``change`` makes of its submission.

        It is delivered from ``due`` on, or at once. Nothing happens where it has ended.
        """
        rows = fetch_all(connection, "SELECT body FROM messages WHERE key = ?", (key,))
        if not rows or self._store.has_ended(connection, key):
            return  # it was cancelled while it was held back
        now = self._clock.seconds()
        request = decode_request(rows[0][0])
        request = replace(request, submitted_at=now, submission=change(request.submission))
        body = encode_request(request)
        self._load.resize(connection, len(body) - len(rows[0][0]))
        connection.execute("UPDATE messages SET at = ?, body = ? WHERE key = ?", (now, body, key))
        if request.deadline is not None:
            self._store.note_deadline(connection, key, request.deadline)
        self._make_due(connection, key, request, max(due, now))
