# -*- test-case-name: tests.queue.test_contracts,tests.sqlite.test_load -*-
"""How much of the embedded file has not ended, where that is limited: one row, written with what changes it.

Where nothing is limited there is no row, and accepting costs nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import apsw
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from openhqm.errors import QueueFull
from openhqm.messages import Load, Reply
from openhqm.policy.limits import Limits
from openhqm.queue.endings import dropped, expired
from openhqm.queue.limits import tell_dropped, tell_expired
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.sql import fetch_one

MOST_DROPPED = 1000
MOST_EXPIRED = 200
Older = Callable[[apsw.Connection, float, int], Sequence[int]]
_COUNT = (
    "INSERT INTO load SELECT count(*), coalesce(sum(length(body)), 0) FROM messages m"
    " WHERE NOT EXISTS (SELECT 1 FROM endings e WHERE e.key = m.key)"
)


class SqliteLoad:
    """What is open in ``file``, kept within ``limits``."""

    _log = Logger()

    def __init__(self, file: SqliteFile, store: SqliteResults, limits: Limits, clock: IReactorTime) -> None:
        self.limits = limits
        self._clock = clock
        self._file = file
        self._store = store
        if limits.any:
            store.within_ending.append(self._ended)

    def start(self) -> None:
        """The file is open. A row that is not there is counted; one that is not kept from now on is removed."""
        self._file.write_now(self._start)
        most = self.limits.bytes
        if most is not None and most > self._file.size + self._file.space:
            text = "queue.limits.bytes is {most}, and the disk of {path} has room for {space} more bytes:"
            text += " it is full before the queue is"
            self._log.warn(text, most=most, path=self._file.directory, space=self._file.space)

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

    def refusal(
        self, connection: apsw.Connection, size: int, oldest: Callable[[apsw.Connection], int | None]
    ) -> QueueFull | None:
        """Within an operation of the file: why a request of ``size`` bytes is not taken, or None.

        Where the limits say so, what has waited longest is dropped for it; ``oldest`` finds that. `QueueFull` is raised
        where that is not enough: then the operation is undone, and nothing was dropped.
        """
        if not self.limits.any:
            return None
        refusal = first = self.limits.refusal(self.read(connection), size)
        count = 0
        while refusal is not None and self.limits.drop_oldest:
            key = oldest(connection) if count < MOST_DROPPED else None
            if key is None and count:
                raise refusal
            if key is None:
                return refusal
            self._end(connection, key, dropped(self._file.ids.issue(key), self._clock.seconds()))
            count += 1
            refusal = self.limits.refusal(self.read(connection), size)
        if first is not None and count:
            self._file.after_commit(partial(tell_dropped, count, first.reason))
        return refusal

    def end_older(self, connection: apsw.Connection, now: float, older: Older) -> int:
        """Within an operation of the file: end some of what has waited for too long; how many these are.

        ``older`` is asked for so many keys of requests that wait for their first attempt since a time.
        """
        age = self.limits.age_seconds
        if age is None:
            return 0
        keys = older(connection, now - age, MOST_EXPIRED)
        ended = [self._end(connection, key, expired(self._file.ids.issue(key), now, age)) for key in keys]
        if any(ended):
            self._file.after_commit(partial(tell_expired, sum(ended), age))
        return len(keys)

    def _end(self, connection: apsw.Connection, key: int, reply: Reply) -> bool:
        """The request ends, and its body makes room at once. False: it had ended before."""
        first = self._store.note_ending(connection, key, reply)
        if first:
            connection.execute("UPDATE messages SET body = x'' WHERE key = ?", (key,))
        return first

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

    def _ended(self, connection: apsw.Connection, key: int, reply: Reply) -> None:
        self.remove(connection, key)
