# -*- test-case-name: tests.queue.test_contracts,tests.sqlite.test_load -*-
"""How much of the embedded file has not ended, where that is limited: one row, written with what changes it.

Where nothing is limited there is no row, and accepting costs nothing more.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw
from twisted.internet.defer import Deferred

from openhqm.errors import QueueFull
from openhqm.messages import Load, Reply
from openhqm.policy.limits import Limits
from openhqm.queue.endings import dropped
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.sql import fetch_one

MOST_DROPPED = 1000
_COUNT = (
    "INSERT INTO load SELECT count(*), coalesce(sum(length(body)), 0) FROM messages m"
    " WHERE NOT EXISTS (SELECT 1 FROM endings e WHERE e.key = m.key)"
)


class SqliteLoad:
    """What is open in ``file``, kept within ``limits``."""

    def __init__(self, file: SqliteFile, store: SqliteResults, limits: Limits) -> None:
        self.limits = limits
        self._file = file
        self._store = store
        if limits.any:
            store.within_ending.append(self._ended)

    def start(self) -> None:
        """The file is open. A row that is not there is counted; one that is not kept from now on is removed."""
        self._file.write_now(self._start)

    def _start(self, connection: apsw.Connection) -> None:
        with connection:
            if not self.limits.any:
                connection.execute("DELETE FROM load")
            elif fetch_one(connection, "SELECT 1 FROM load") is None:
                connection.execute(_COUNT)

    def add(self, connection: apsw.Connection, size: int) -> None:
        """Within an operation of the file: a request of ``size`` bytes is taken, whatever the limits say."""
        if self.limits.any:
            connection.execute("UPDATE load SET requests = requests + 1, bytes = bytes + ?", (size,))

    def refusal(self, connection: apsw.Connection, size: int) -> QueueFull | None:
        """Within an operation of the file: why a request of ``size`` bytes is not taken, or None."""
        return self.limits.refusal(self.read(connection), size) if self.limits.any else None

    def read(self, connection: apsw.Connection) -> Load:
        """What is open."""
        return Load(*fetch_one(connection, "SELECT requests, bytes FROM load"))

    def resize(self, connection: apsw.Connection, change: int) -> None:
        """Within an operation of the file: an envelope is so many bytes longer."""
        if self.limits.any:
            connection.execute("UPDATE load SET bytes = bytes + ?", (change,))

    def remove(self, connection: apsw.Connection, key: int) -> None:
        """Within an operation of the file: the request ends, or is taken back."""
        if self.limits.any:
            connection.execute(
                "UPDATE load SET requests = requests - 1,"
                " bytes = bytes - (SELECT length(body) FROM messages WHERE key = ?)",
                (key,),
            )

    def make_room(
        self, oldest: Callable[[apsw.Connection], int | None], now: Callable[[], float], size: int
    ) -> Deferred[int | None]:
        """End what has waited longest until a request of ``size`` bytes is taken; how many requests that were.

        ``oldest`` finds it. None: nothing waits that could be dropped.
        """

        def drop(connection: apsw.Connection) -> int | None:
            for count in range(MOST_DROPPED):
                if self.refusal(connection, size) is None:
                    return count
                key = oldest(connection)
                if key is None:
                    return count or None
                self._store.note_ending(connection, key, dropped(self._file.ids.issue(key), now()))
                connection.execute("UPDATE messages SET body = x'' WHERE key = ?", (key,))
            return MOST_DROPPED

        return self._file.write(drop)

    def _ended(self, connection: apsw.Connection, key: int, reply: Reply) -> None:
        self.remove(connection, key)
