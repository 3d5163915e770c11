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

from openhqm.codec import HEAD_BYTES
from openhqm.errors import QueueFull
from openhqm.messages import Load, Reply
from openhqm.policy.limits import Limits
from openhqm.queue.endings import dropped, expired
from openhqm.queue.limits import LOWERED, tell_dropped, tell_expired
from openhqm.sqlite.catching_up import CatchingUp
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.sql import fetch_one

MOST_DROPPED = 1000
MOST_ENDED = 200
Older = Callable[[apsw.Connection, float, int], Sequence[int]]
Oldest = Callable[[apsw.Connection], int | None]
# What says on whose behalf the request was stays.
_CUT = f"UPDATE messages SET body = coalesce(substr(body, 1, {HEAD_BYTES}), x'') WHERE key = ?"
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
        self._counting = CatchingUp(file, self._recount)
        store.within_ending.append(self._ended)
        store.within_sweep.append(self._counting.run)

    def start(self) -> None:
        """The file is open. A row that is not there is counted; one that is not kept from now on is removed."""
        self._file.write_now(self._start)
        self._compare_with_disk()

    def _compare_with_disk(self) -> None:
        most = self.limits.bytes
        if most is not None and most > self._file.size + self._file.space:
            text = "queue.limits.bytes is {most}, and the disk of {path} has room for {space} more bytes:"
            text += " it is full before the queue is"
            self._log.warn(text, most=most, path=self._file.directory, space=self._file.space)

    def limit(self, limits: Limits) -> None:
        """Other limits hold from now on. What is open is counted, which takes long once where nothing was limited."""
        counts = limits.any != self.limits.any
        self.limits = limits
        self._compare_with_disk()
        if counts:
            self._counting.changed()

    def _recount(self, connection: apsw.Connection) -> None:
        connection.execute("DELETE FROM load")
        if self.limits.any:
            connection.execute(_COUNT)

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

    def refusal(self, connection: apsw.Connection, size: int, oldest: Oldest) -> QueueFull | None:
        """Within an operation of the file: why a request of ``size`` bytes is not taken, or None.

        Where the limits say so, what has waited longest is dropped for it; ``oldest`` finds that. `QueueFull` is raised
        where that is not enough: then the operation is undone, and nothing was dropped.
        """
        if not self.limits.any:
            return None
        load = self.read(connection)
        refusal = first = None if load is None else self.limits.refusal(load, size)
        count = 0
        while load is not None and refusal is not None and self.limits.drop_oldest:
            if self.limits.excess(load, 1, size) > MOST_DROPPED - count:
                break  # the limits are lower than they were, and `end_some` is at it
            key = oldest(connection)
            if key is None:
                break
            self._end(connection, key, dropped(self._file.ids.issue(key), self._clock.seconds()))
            count += 1
            load = self.read(connection)
            refusal = None if load is None else self.limits.refusal(load, size)
        if refusal is not None and count:
            raise refusal
        if first is not None and count:
            self._file.after_commit(partial(tell_dropped, count, first.reason))
        return refusal

    def end_some(self, connection: apsw.Connection, now: float, older: Older, oldest: Oldest) -> int:
        """Within an operation of the file: end some of what waits for too long, or is too much; how many these are.

        ``older`` is asked for so many keys of requests that wait for their first attempt since a time, ``oldest`` for
        the one that has waited longest. There is too much where the limits are lower than they were; what comes makes
        room for itself.
        """
        return self._end_older(connection, now, older) + self._end_excess(connection, now, oldest)

    def _end_excess(self, connection: apsw.Connection, now: float, oldest: Oldest) -> int:
        load = self.read(connection) if self.limits.drop_oldest else None
        excess = 0 if load is None else min(self.limits.excess(load), MOST_ENDED)
        count = 0
        while count < excess and (key := oldest(connection)) is not None:
            self._end(connection, key, dropped(self._file.ids.issue(key), now))
            count += 1
        if count:
            self._file.after_commit(partial(tell_dropped, count, LOWERED))
        return count

    def _end_older(self, connection: apsw.Connection, now: float, older: Older) -> int:
        age = self.limits.age_seconds
        if age is None:
            return 0
        keys = older(connection, now - age, MOST_ENDED)
        ended = [self._end(connection, key, expired(self._file.ids.issue(key), now, age)) for key in keys]
        if any(ended):
            self._file.after_commit(partial(tell_expired, sum(ended), age))
        return len(keys)

    def _end(self, connection: apsw.Connection, key: int, reply: Reply) -> bool:
        """The request ends, and its body makes room at once. False: it had ended before."""
        first = self._store.note_ending(connection, key, reply)
        if first:
            connection.execute(_CUT, (key,))
        return first

    def read(self, connection: apsw.Connection) -> Load | None:
        """What is open; None: nothing is limited, or it has not been counted since that has changed."""
        row = fetch_one(connection, "SELECT requests, bytes FROM load") if self.limits.any else None
        return None if row is None else Load(*row)

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
