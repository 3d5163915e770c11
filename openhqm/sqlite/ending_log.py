# -*- test-case-name: tests.queue.test_ending_logs -*-
"""The log of endings in the embedded file: a row for each, in the transaction of the ending.

The table is made when the first reader comes. Its newest row is never dropped before the log ends, so that no number is
given out twice.
"""

from __future__ import annotations

import os

import apsw
import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from openhqm.codec import HEAD_BYTES, decode_request, tenant_of
from openhqm.interfaces import IEndingLog
from openhqm.messages import LoggedEnding, LogPage, Reply, Status
from openhqm.policy.tags import KEPT_SECONDS, MOST_KEPT, logged_tags
from openhqm.queue.watchers import Nudges
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.sql import fetch_all, fetch_one

TRIMMED_ROWS = 500
_TABLE = (
    "CREATE TABLE ending_log (number INTEGER PRIMARY KEY, key INTEGER NOT NULL,"
    " status TEXT NOT NULL, at REAL NOT NULL, tags BLOB, tenant TEXT)"
)
_BOUNDS = "SELECT (SELECT min(number) FROM ending_log), (SELECT max(number) FROM ending_log)"
_ROWS = "SELECT number, key, status, at, tags, tenant FROM ending_log WHERE number > ? ORDER BY number LIMIT ?"
_META = "SELECT value FROM meta WHERE name = ?"


@implementer(IEndingLog)
class SqliteEndingLog:
    """The log in ``file``. ``most`` is how many endings it has at most."""

    def __init__(self, file: SqliteFile, clock: IReactorTime, most: int = MOST_KEPT) -> None:
        self._file = file
        self._clock = clock
        self._most = most
        self._name = ""
        self._until = 0.0
        self._nudges = Nudges()
        self.watch = self._nudges.add

    def start(self) -> None:
        """Go on where an earlier process was. The file is open."""
        found = [fetch_one(self._file.reader, _META, (name,)) for name in ("ending_log", "ending_log_until")]
        if None not in found:
            (self._name,), (self._until,) = found

    def keep(self) -> Deferred[None]:
        return self._file.write(self._keep)

    def _keep(self, connection: apsw.Connection) -> None:
        now = self._clock.seconds()
        name, until = self._name, now + KEPT_SECONDS
        if now >= self._until:
            name = os.urandom(8).hex()
            connection.execute("DROP TABLE IF EXISTS ending_log")
            connection.execute(_TABLE)
        for key, value in (("ending_log", name), ("ending_log_until", until)):
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
        self._file.after_commit(lambda: self._kept(name, until))

    def _kept(self, name: str, until: float) -> None:
        self._name, self._until = name, until

    def read(self, after: int, most: int) -> Deferred[LogPage]:
        return maybeDeferred(self._read, after, most)

    def _read(self, after: int, most: int) -> LogPage:
        if self._clock.seconds() >= self._until:
            return LogPage("", 1, 0)
        reader = self._file.reader
        with reader:  # one snapshot for both looks
            first, last = fetch_one(reader, _BOUNDS)
            rows = fetch_all(reader, _ROWS, (after, most)) if last is not None and after < last else []
        issue = self._file.ids.issue
        endings = [
            LoggedEnding(
                number, issue(key), Status(status), at, tuple(msgspec.json.decode(tags)) if tags else (), tenant
            )
            for number, key, status, at, tags, tenant in rows
        ]
        return LogPage(self._name, first or 1, last or 0, endings)

    # For the store, within its operations

    def note(self, connection: apsw.Connection, key: int, reply: Reply) -> None:
        """A request ends."""
        if not self._until:
            return
        now = self._clock.seconds()
        if now >= self._until:
            self._until = 0.0  # also where the clock is set back
            return
        row = fetch_one(connection, "SELECT body FROM messages WHERE key = ?", (key,))
        body = b"" if row is None else row[0]
        tags = _tags(body)
        if tags is None:
            return
        connection.execute(
            "INSERT INTO ending_log (key, status, at, tags, tenant) VALUES (?, ?, ?, ?, ?)",
            (key, reply.status.value, now, msgspec.json.encode(tags) if tags else None, tenant_of(body[:HEAD_BYTES])),
        )
        self._file.after_commit(self._nudges.tell)

    def trim(self, connection: apsw.Connection, now: float) -> int:
        """Drop some of what is too much or too old; how much was dropped."""
        if not self._name:
            return 0
        if now >= self._until:
            connection.execute("DELETE FROM ending_log")
            self._file.after_commit(self._end)
            return 0
        _, last = fetch_one(connection, _BOUNDS)
        rows = fetch_all(connection, _ROWS, (0, TRIMMED_ROWS)) if last is not None else []
        dropped = 0
        for number, _, _, at, *_ in rows:
            if number >= last or (number > last - self._most and at > now - KEPT_SECONDS):
                break
            dropped = number
        if not dropped:
            return 0
        connection.execute("DELETE FROM ending_log WHERE number <= ?", (dropped,))
        return int(connection.changes())

    def _end(self) -> None:
        if self._clock.seconds() >= self._until:
            self._name, self._until = "", 0.0


def _tags(body: bytes) -> tuple[str, ...] | None:
    """See `logged_tags`. Few envelopes have to be decoded to know."""
    if b'"tags"' not in body and b'"keeps_result"' not in body:
        return ()
    return logged_tags(decode_request(body).submission)
