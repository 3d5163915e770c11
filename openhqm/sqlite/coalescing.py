# -*- test-case-name: tests.queue.test_contracts,tests.brokered.test_forms -*-
"""The coalesce keys in the embedded file: which request a newer one with the same key takes the place of.

Everything that is given a connection runs inside an operation of `SqliteFile.write`. A key is in the table until its
most wait is over.
"""

from __future__ import annotations

from hashlib import blake2b

import apsw
from msgspec.structs import replace

from openhqm.codec import encode_request
from openhqm.messages import Coalescing
from openhqm.queue.endings import superseded
from openhqm.queue.ledger import Outgoing
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.results import SWEEP_ROWS, SqliteResults
from openhqm.sqlite.sql import fetch_one

_TABLE = """
CREATE TABLE IF NOT EXISTS coalescing (
    digest BLOB PRIMARY KEY, key INTEGER NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS coalescing_until ON coalescing (until);
"""
_WAITS = (
    "SELECT coalesce(i.attempt, 0) = 0 FROM messages m LEFT JOIN inflight i ON i.key = m.key"
    " WHERE m.key = ? AND NOT EXISTS (SELECT 1 FROM endings e WHERE e.key = m.key)"
)


class CoalesceKeys:
    """Those in ``file``; ``store`` is the result store there."""

    def __init__(self, file: SqliteFile, store: SqliteResults) -> None:
        self._file = file
        self._store = store
        store.within_sweep.append(self._forget)

    def start(self) -> None:
        """The file is open."""
        self._file.write_now(lambda connection: connection.execute(_TABLE))

    def take(self, connection: apsw.Connection, coalescing: Coalescing, key: int, now: float) -> float:
        """The request ``key`` has the place from now on, and the one that had it ends; when the new one begins."""
        digest = blake2b(f"{coalescing.scope} {coalescing.key}".encode(), digest_size=16).digest()
        known = fetch_one(connection, "SELECT key, until FROM coalescing WHERE digest = ? AND until > ?", (digest, now))
        until: float = now + coalescing.most
        if known is not None and fetch_one(connection, _WAITS, (known[0],)) == (1,):
            earlier, until = known
            by = self._file.ids.issue(key)
            self._store.note_ending(connection, earlier, superseded(self._file.ids.issue(earlier), now, by))
            connection.execute("DELETE FROM inflight WHERE key = ?", (earlier,))
        connection.execute("INSERT OR REPLACE INTO coalescing VALUES (?, ?, ?)", (digest, key, until))
        return min(now + coalescing.window, until)

    def placed(self, connection: apsw.Connection, outgoing: Outgoing) -> Outgoing:
        """The same for a request whose message goes to a broker, and is published when it begins."""
        request = outgoing.request
        submission, now = request.submission, request.submitted_at
        assert submission.coalescing is not None, "it has a key"
        due = self.take(connection, submission.coalescing, outgoing.number, now)
        request = replace(request, submission=replace(submission, not_before=due))
        return replace(outgoing, request=request, body=encode_request(request))

    def _forget(self, connection: apsw.Connection, now: float) -> int:
        expired = "SELECT digest FROM coalescing WHERE until <= ? ORDER BY until LIMIT ?"
        connection.execute(f"DELETE FROM coalescing WHERE digest IN ({expired})", (now, SWEEP_ROWS))
        return connection.changes()
