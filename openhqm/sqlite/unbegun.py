# -*- test-case-name: tests.brokered.test_forms,tests.sqlite.test_unbegun -*-
"""Since when each request over a broker waits for its first attempt, kept where a limit asks which has waited longest.

Everything that is given a connection runs inside an operation of `SqliteFile.write`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apsw
from twisted.internet.interfaces import IReactorTime

from openhqm.codec import decode_request
from openhqm.messages import Request
from openhqm.queue.ledger import CLAIM_SECONDS
from openhqm.sqlite.catching_up import CatchingUp
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.sql import fetch_all, fetch_one

_KEPT = "unbegun is kept"
_TABLE = """
CREATE TABLE IF NOT EXISTS unbegun (key INTEGER PRIMARY KEY, since REAL NOT NULL);
CREATE INDEX IF NOT EXISTS unbegun_since ON unbegun (since);
"""
# An entry that waits for its time says when that is, one that is claimed when the claim ends.
_FILL = (
    "INSERT INTO unbegun SELECT o.key, CASE WHEN o.state = 2 THEN m.at WHEN o.state = 0 AND o.claimed = 1"
    f" THEN max(m.at, o.due - {CLAIM_SECONDS}) ELSE max(m.at, o.due) END"
    " FROM outbox o JOIN messages m ON m.key = o.key LEFT JOIN inflight i ON i.key = o.key"
    " WHERE coalesce(i.attempt, 0) = 0 AND o.state <> 4"
)


def waits_since(request: Request) -> float:
    """When the request began to wait: a delay is not waiting."""
    return max(request.submitted_at, request.submission.not_before or 0.0)


class Unbegun:
    """The table ``unbegun`` of ``file``. ``wanted`` says whether it is kept, which may change at any time.

    ``adopt_all`` is called before it is filled: what waits has an outbox entry then.
    """

    def __init__(
        self,
        file: SqliteFile,
        clock: IReactorTime,
        wanted: Callable[[], bool],
        adopt_all: Callable[[apsw.Connection], None],
    ) -> None:
        self._file = file
        self._clock = clock
        self._wanted = wanted
        self._adopt_all = adopt_all
        self._catching_up = CatchingUp(file, self._exchange)
        self.changed, self.catch_up = self._catching_up.changed, self._catching_up.run

    def start(self) -> None:
        """The file is open."""
        self._file.write_now(self._start)

    def _start(self, connection: apsw.Connection) -> None:
        with connection:
            connection.execute(_TABLE)
            is_kept = fetch_one(connection, "SELECT 1 FROM meta WHERE name = ?", (_KEPT,)) is not None
            if is_kept != self._wanted():
                self._exchange(connection)

    def _exchange(self, connection: apsw.Connection) -> None:
        """Fill the table where it is wanted, and empty it where it is not. With many requests that takes long, once."""
        connection.execute("DELETE FROM unbegun")
        if self._wanted():
            self._adopt_all(connection)
            connection.execute(_FILL)
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, 1)", (_KEPT,))
        else:
            connection.execute("DELETE FROM meta WHERE name = ?", (_KEPT,))

    # One request

    def add(self, connection: apsw.Connection, key: int, since: float) -> None:
        """The request waits since then, or will from then on."""
        if self._wanted():
            connection.execute("INSERT OR REPLACE INTO unbegun VALUES (?, ?)", (key, since))

    def add_again(self, connection: apsw.Connection, key: int) -> None:
        """The request has not begun after all: it waits since it was accepted, or since its delay was over."""
        if self._wanted():
            (body,) = fetch_one(connection, "SELECT body FROM messages WHERE key = ?", (key,))
            self.add(connection, key, waits_since(decode_request(body)))

    def remove(self, connection: apsw.Connection, key: int) -> None:
        """The request has begun, or ended."""
        if self._wanted():
            connection.execute("DELETE FROM unbegun WHERE key = ?", (key,))

    # All of them

    def oldest(self, connection: apsw.Connection) -> int | None:
        """The request that has waited longest."""
        return next(iter(self.older(connection, self._clock.seconds(), 1)), None)

    def older(self, connection: apsw.Connection, before: float, most: int) -> Sequence[int]:
        """Up to ``most`` requests that wait since ``before`` or earlier, the oldest first."""
        rows = fetch_all(
            connection, "SELECT key FROM unbegun WHERE since <= ? ORDER BY since, key LIMIT ?", (before, most)
        )
        return [key for (key,) in rows]
