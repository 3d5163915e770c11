# -*- test-case-name: tests.brokered.test_window -*-
"""How many messages that no worker has begun lie in each channel of a broker, where it keeps no more than a number.

The count is exact within each transaction, whatever changes an entry: triggers of this connection keep it, in a table
of this connection. What has ended lies in its channel until a worker has passed it over: until then its entry is stale,
and takes room. Everything that is given a connection runs inside an operation of `SqliteFile.write`.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw

from openhqm.queue.ledger import CLAIM_SECONDS, STALE_SECONDS, pause_for_room
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.sql import fetch_all, fetch_one

DUE, PUBLISHED, BEHIND, CROWDED, STALE = range(5)
_TAKES_ROOM = f"({{0}}.state IN ({PUBLISHED}, {STALE}) OR ({{0}}.state = {DUE} AND {{0}}.claimed = 1))"
_OLD, _NEW = _TAKES_ROOM.format("OLD"), _TAKES_ROOM.format("NEW")
_ENTER = "INSERT INTO window VALUES (NEW.channel, 1) ON CONFLICT (channel) DO UPDATE SET count = count + 1"
_LEAVE = "UPDATE window SET count = count - 1 WHERE channel = OLD.channel"
_COUNTING = f"""
CREATE TEMP TABLE window (channel TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO window SELECT channel, count(*) FROM outbox o WHERE {_TAKES_ROOM.format("o")} GROUP BY channel;
CREATE TEMP TRIGGER window_insert AFTER INSERT ON main.outbox WHEN {_NEW} BEGIN {_ENTER}; END;
CREATE TEMP TRIGGER window_delete AFTER DELETE ON main.outbox WHEN {_OLD} BEGIN {_LEAVE}; END;
CREATE TEMP TRIGGER window_enter AFTER UPDATE ON main.outbox WHEN {_NEW} BEGIN {_ENTER}; END;
CREATE TEMP TRIGGER window_leave AFTER UPDATE ON main.outbox WHEN {_OLD} BEGIN {_LEAVE}; END;
CREATE INDEX IF NOT EXISTS outbox_crowded ON outbox (channel, due, key) WHERE state = {CROWDED};
CREATE INDEX IF NOT EXISTS outbox_stale ON outbox (channel, due) WHERE state = {STALE};
"""


class Window:
    """``size`` is how many there may be in a channel; None: as many as come.

    ``room`` is called once there is room for what waits, with how many seconds to leave for more.
    """

    def __init__(self, file: SqliteFile, size: int | None, room: Callable[[float], None]) -> None:
        self.size = size
        self._file = file
        self._room = room
        self._pause = 0.0 if size is None else pause_for_room(size)
        self._some_wait = True
        self._waits = 0

    def start(self, connection: apsw.Connection) -> None:
        """The file is open. Where there is no window any more, what waited for room is due."""
        if self.size is not None:
            fetch_all(connection, "PRAGMA temp_store = MEMORY")
            connection.execute(_COUNTING)
        else:
            connection.execute(f"DELETE FROM outbox WHERE state = {STALE}")
            connection.execute(f"UPDATE outbox SET state = {DUE} WHERE state = {CROWDED}")
            connection.execute("DROP INDEX IF EXISTS outbox_crowded; DROP INDEX IF EXISTS outbox_stale")

    # Room

    def has_room(self, connection: apsw.Connection, channel: str) -> bool:
        """Whether one more may be published into the channel: nothing waits for that."""
        if self.size is None:
            return True
        waits = f"SELECT 1 FROM outbox WHERE state = {CROWDED} AND channel = ? LIMIT 1"
        return fetch_one(connection, waits, (channel,)) is None and self.free(connection, channel) > 0

    def free(self, connection: apsw.Connection, channel: str) -> int:
        """How many may be published into the channel. Not above 0 where it is full."""
        assert self.size is not None
        row = fetch_one(connection, "SELECT count FROM window WHERE channel = ?", (channel,))
        return self.size - (row[0] if row else 0)

    def waits(self) -> None:
        """An entry waits for room."""
        self._waits += 1
        self._some_wait = True

    def none_wait(self) -> None:
        """None was found that waits."""
        waits = self._waits

        def forget() -> None:
            self._some_wait = self._waits != waits

        self._file.after_commit(forget)

    def freed(self) -> None:
        """An entry has left its channel, maybe."""
        if self.size is not None and self._some_wait:
            self._file.after_commit(lambda: self._room(self._pause))

    # What lies in a channel and is worth nothing

    def ended(self, connection: apsw.Connection, key: int) -> None:
        """The request has ended. Where its message was published, it stays in its channel."""
        if self.size is not None:
            connection.execute(
                f"UPDATE outbox SET due = CASE state WHEN {DUE} THEN due - {CLAIM_SECONDS} ELSE due END,"
                f" state = {STALE} WHERE key = ? AND (state = {PUBLISHED} OR (state = {DUE} AND claimed = 1))",
                (key,),
            )

    def passed_over(self, connection: apsw.Connection, key: int) -> None:
        """A worker has got the message of a request that has ended."""
        if self.size is not None:
            connection.execute(f"DELETE FROM outbox WHERE key = ? AND state = {STALE}", (key,))
            self.freed()

    def begins(self, connection: apsw.Connection, key: int) -> None:
        """A worker has got the message of a request. What was published well before it has come, or is lost."""
        if self.size is not None:
            row = fetch_one(
                connection, f"SELECT channel, due FROM outbox WHERE key = ? AND state = {PUBLISHED}", (key,)
            )
            if row is not None:
                connection.execute(
                    f"DELETE FROM outbox WHERE state = {STALE} AND channel = ? AND due < ?",
                    (row[0], row[1] - STALE_SECONDS),
                )

    def lost(self, connection: apsw.Connection, channel: str) -> None:
        """Nothing is left in the channel."""
        if self.size is not None:
            connection.execute(f"DELETE FROM outbox WHERE state = {STALE} AND channel = ?", (channel,))
            self.freed()
