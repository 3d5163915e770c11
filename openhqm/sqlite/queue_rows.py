# -*- test-case-name: tests.queue.test_contracts -*-
"""The rows of one queue in the embedded file: its keys, and which request is delivered next.

Everything that is given a connection runs inside an operation of `SqliteFile.write`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import apsw
from twisted.internet.defer import Deferred

from openhqm.messages import Acceptance, Depth, IdempotencyClaim, Priority, Waiting
from openhqm.policy.shares import Shares
from openhqm.sqlite.appends import INSERT, Appends
from openhqm.sqlite.claims import row_of
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.schema import (
    BY_PRIORITY,
    RANK,
    RANKS,
    RUNNING_BITS,
    channel_of,
    first_key,
    last_key,
)
from openhqm.sqlite.sql import fetch_all, fetch_one

A = TypeVar("A", bound=Appends)
Row = tuple[int, int, bytes]
"""Key, attempt, body."""

MOST_LOOKED_AT = 1000
MOST_COUNTED = 100_000  # at the start, before the first request
PORTION = 5_000  # keys, in an operation of a sweep
_CURSORS = "SELECT channel, cursor FROM channels WHERE channel BETWEEN ? AND ?"
_FRESH = (
    "SELECT m.key, m.body, e.key IS NOT NULL FROM messages m LEFT JOIN endings e ON e.key = m.key"
    " WHERE m.key > ? AND m.key <= ? ORDER BY m.key LIMIT ?"
)
_IS_DUE = "SELECT 1 FROM inflight WHERE queue = ? AND rank = ? AND due <= ? LIMIT 1"
NEVER = float("inf")
MAX_KEY = 2**63 - 1


class QueueRows:
    """The queue ``name``: one channel for each rank."""

    def __init__(self, file: SqliteFile, results: SqliteResults, name: str) -> None:
        self._results = results
        self._file = file
        self._shares = Shares(len(BY_PRIORITY))
        self._highest: dict[int, int] = {}
        self._appends: dict[int, Appends] = {}
        self._more = [partial(self._added, rank) for rank in range(RANKS)]
        self._fresh: dict[int, int] = {}
        self._uncounted_to: dict[int, int] = {}
        self._none_older = 0.0
        self.number: int = file.write_now(partial(self._prepare, name))
        results.on_never_fetched[self.number] = self._forgotten
        if any(self._uncounted_to.values()):
            results.within_sweep.append(self.count_some)

    def _prepare(self, name: str, connection: apsw.Connection) -> int:
        connection.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", (name,))
        row = fetch_one(connection, "SELECT number FROM queues WHERE name = ?", (name,))
        number: int = row[0]
        for rank in range(RANKS):
            channel = number * RANKS + rank
            first, last = first_key(channel), last_key(channel)
            connection.execute("INSERT OR IGNORE INTO channels VALUES (?, ?, ?)", (channel, first, first))
            highest, cursor = fetch_one(
                connection, "SELECT highest, cursor FROM channels WHERE channel = ?", (channel,)
            )
            (newest,) = fetch_one(connection, "SELECT max(key) FROM messages WHERE key > ? AND key <= ?", (first, last))
            self._highest[rank] = max(highest, newest or 0)
            many = (newest or 0) - cursor > MOST_COUNTED
            self._uncounted_to[rank] = newest if many else 0
            self._fresh[rank] = 0 if many else self._count_between(connection, cursor, newest or 0)
        return number

    def _count_between(self, connection: apsw.Connection, above: int, last: int) -> int:
        (count,) = fetch_one(connection, "SELECT count(*) FROM messages WHERE key > ? AND key <= ?", (above, last))
        return int(count)

    def count_some(self, connection: apsw.Connection, now: float) -> int:
        """Within an operation of the file: count some of what was fresh at the start, the newest of it first.

        `_fresh` has the messages above `_uncounted_to`, and what changes below that is not counted, for it was not
        counted before. Until all are counted, their keys tell about how many they are. Returns how much was looked at.
        """
        for rank, to in self._uncounted_to.items():
            if not to:
                continue
            channel = self.channel(rank)
            (cursor,) = fetch_one(connection, "SELECT cursor FROM channels WHERE channel = ?", (channel,))
            above = max(cursor, to - PORTION)
            self._file.after_commit(
                partial(self._counted, rank, self._count_between(connection, above, to), above, above <= cursor)
            )
            return MOST_LOOKED_AT
        return 0

    def _counted(self, rank: int, count: int, above: int, all_of_them: bool) -> None:
        self._fresh[rank] += count
        self._uncounted_to[rank] = 0 if all_of_them else above

    def channel(self, rank: int) -> int:
        """The number of the channel for a rank."""
        return self.number * RANKS + rank

    def next_key(self, rank: int) -> int:
        """A key that was never given out before. Rows must be written in the order of asking."""
        self._highest[rank] += 1
        return self._highest[rank]

    def add(self, connection: apsw.Connection, key: int, at: float, body: bytes) -> None:
        """Add a message."""
        connection.execute(INSERT, (key, at, body))
        self._file.after_commit(partial(self._more[(key >> RUNNING_BITS) % RANKS], 1))

    def append(
        self, key: int, at: float, body: bytes, result: Acceptance, claim: IdempotencyClaim | None = None
    ) -> Deferred[Acceptance]:
        """Add a message that needs nothing more than its claim, if it has one. See `Appends.add`."""
        taking = None if claim is None else row_of(claim, key, at)
        return self.appends_for(key, Appends).add((key, at, body), result, taking)

    def appends_for(self, key: int, make: Callable[[SqliteFile, Callable[[int], None]], A]) -> A:
        """What can have the message ``key``. All of one rank are of the same kind; ``make`` makes a new one."""
        rank = (key >> RUNNING_BITS) % RANKS
        appends: Any = self._appends.get(rank)
        if appends is None or not appends.takes(key):
            appends = self._appends[rank] = make(self._file, self._more[rank])
        return appends  # type: ignore[no-any-return]

    def _added(self, rank: int, count: int) -> None:
        self._change(rank, count, MAX_KEY)  # a new key is above all those that were there at the start

    def remove(self, connection: apsw.Connection, key: int) -> None:
        """Remove a message that was never delivered. Its key is not given out again."""
        connection.execute("UPDATE channels SET highest = max(highest, ?) WHERE channel = ?", (key, channel_of(key)))
        connection.execute("DELETE FROM messages WHERE key = ?", (key,))
        self._count(key, -1)

    def _count(self, key: int, change: int) -> None:
        self._file.after_commit(partial(self._change, channel_of(key) % RANKS, change, key))

    def _change(self, rank: int, change: int, key: int) -> None:
        if key > self._uncounted_to[rank]:
            self._fresh[rank] += change

    def _passed(self, connection: apsw.Connection, rank: int, before: int, last: int, count: int) -> None:
        """The cursor of a channel has passed ``count`` messages above ``before``, up to ``last``."""
        if before >= self._uncounted_to[rank]:
            self._count(last, -count)
            return
        rows = fetch_all(connection, "SELECT key FROM messages WHERE key > ? AND key <= ?", (before, last))

        def passed() -> None:
            self._fresh[rank] -= sum(key > self._uncounted_to[rank] for (key,) in rows)

        self._file.after_commit(passed)

    def _forgotten(self, key: int) -> None:
        """Within an operation: a message above the cursor was deleted, because its request had ended long ago."""
        self._count(key, -1)

    def reschedule(self, connection: apsw.Connection, key: int, due: float) -> None:
        """The delivery is over: deliver the request again at ``due``, as the next attempt."""
        connection.execute("UPDATE inflight SET due = ? WHERE key = ?", (due, key))

    def release(self, connection: apsw.Connection, key: int, now: float) -> None:
        """The delivery is over and was no attempt: deliver the request again, before those accepted after it."""
        connection.execute(
            "UPDATE inflight SET attempt = attempt - 1,"
            " due = min(?, (SELECT at FROM messages m WHERE m.key = inflight.key)) WHERE key = ?",
            (now, key),
        )

    def finish(self, connection: apsw.Connection, key: int) -> None:
        """The delivery and the work are over. The message stays: it is the request's record until that expires."""
        connection.execute("DELETE FROM inflight WHERE key = ?", (key,))

    def fetch(
        self, connection: apsw.Connection, most: int, now: float, in_order: bool = False
    ) -> tuple[list[Row], float]:
        """Choose up to ``most`` requests and count their attempts; the second value is when to look again.

        ``in_order``: one, and none while another is out or waits for its retry.
        """
        if in_order:
            blocked, due = self._blocked(connection, now)
            if blocked:
                return [], due
            most = 1
        rows: list[Row] = []
        look_again = NEVER
        for index, share in self._shares.divide(self._filled(connection, now), most):
            rank, enough = RANK[BY_PRIORITY[index]], min(most, len(rows) + share)
            if len(rows) < enough:
                rows += self._fetch_due(connection, rank, enough - len(rows), now)
            if len(rows) < enough:
                fresh, more = self._fetch_fresh(connection, rank, enough - len(rows))
                rows += fresh
                if more:
                    look_again = now
        if len(rows) < most:
            look_again = min(look_again, self._next_due(connection))
        return rows, look_again

    def _filled(self, connection: apsw.Connection, now: float) -> list[bool]:
        """Of each priority, high first, whether a fetch may find something."""
        cursors = dict(fetch_all(connection, _CURSORS, (self.channel(0), self.channel(RANKS - 1))))
        return [
            cursors[self.channel(rank)] < self._highest[rank]
            or fetch_one(connection, _IS_DUE, (self.number, rank, now)) is not None
            for rank in map(RANK.__getitem__, BY_PRIORITY)
        ]

    def _blocked(self, connection: apsw.Connection, now: float) -> tuple[bool, float]:
        """Whether a request is out or waits for its retry, and when that may be over."""
        for key, due in fetch_all(
            connection,
            "SELECT key, due FROM inflight WHERE queue = ? AND (due IS NULL OR due > ?) AND attempt > 0",
            (self.number, now),
        ):
            if due is None:
                return True, NEVER  # the end of its delivery wakes the queue
            if not self._results.has_ended(connection, key):
                return True, due
            connection.execute("DELETE FROM inflight WHERE key = ?", (key,))
        return False, NEVER

    def _fetch_due(self, connection: apsw.Connection, rank: int, most: int, now: float) -> list[Row]:
        rows: list[Row] = []
        for key, attempt, body in fetch_all(
            connection,
            "SELECT i.key, attempt + 1, body FROM inflight i JOIN messages m ON m.key = i.key"
            " WHERE queue = ? AND rank = ? AND due <= ? ORDER BY due LIMIT ?",
            (self.number, rank, now, most),
        ):
            if self._results.has_ended(connection, key):
                connection.execute("DELETE FROM inflight WHERE key = ?", (key,))
            else:
                connection.execute("UPDATE inflight SET attempt = ?, due = NULL WHERE key = ?", (attempt, key))
                self._results.note_event(connection, key, "processing", {"attempt": attempt})
                rows.append((key, attempt, body))
        return rows

    def _fetch_fresh(self, connection: apsw.Connection, rank: int, most: int) -> tuple[list[Row], bool]:
        """What lies behind the cursor of a channel, and whether the look ended before the channel did."""
        channel = self.channel(rank)
        (before,) = fetch_one(connection, "SELECT cursor FROM channels WHERE channel = ?", (channel,))
        if before >= self._highest[rank]:
            return [], False
        rows: list[Row] = []
        cursor = before
        looked_at = 0
        for cursor, body, ended in connection.execute(_FRESH, (before, last_key(channel), MOST_LOOKED_AT)):
            looked_at += 1
            if not ended:
                rows.append((cursor, 1, body))
                if len(rows) == most:
                    break
        if rows:
            values = [(key, self.number, rank) for key, _, _ in rows]
            connection.executemany("INSERT INTO inflight VALUES (?, ?, ?, 1, NULL)", values)
            self._results.note_first_attempts(connection, [key for key, _, _ in rows])
        if cursor != before:
            connection.execute("UPDATE channels SET cursor = ? WHERE channel = ?", (cursor, channel))
            self._passed(connection, rank, before, cursor, looked_at)
        return rows, looked_at == MOST_LOOKED_AT

    def oldest(self, connection: apsw.Connection) -> tuple[float, int] | None:
        """When the request was accepted that waits for its first attempt for longest, and its key.

        What has ended and lies before it is passed over for good. A request with a delay is not looked at.
        """
        found: list[tuple[float, int]] = []
        for rank in RANK.values():
            channel = self.channel(rank)
            (before,) = fetch_one(connection, "SELECT cursor FROM channels WHERE channel = ?", (channel,))
            if before >= self._highest[rank]:
                continue
            passed = before
            for key, at in connection.execute(
                "SELECT key, at FROM messages WHERE key > ? AND key <= ? ORDER BY key LIMIT ?",
                (before, last_key(channel), MOST_LOOKED_AT),
            ):
                if not self._results.has_ended(connection, key):
                    found.append((at, key))
                    break
                passed = key
                self._count(key, -1)
            if passed != before:
                connection.execute("UPDATE channels SET cursor = ? WHERE channel = ?", (passed, channel))
        return min(found, default=None)

    def older(self, connection: apsw.Connection, before: float, now: float, most: int) -> list[int]:
        """Up to ``most`` keys of requests without a delay that wait for a first attempt since ``before`` or earlier.

        They are passed over for good: the caller ends them. Nothing is read before something can be that old.
        """
        if before < self._none_older:
            return []
        found: list[int] = []
        none_older = now  # of what is accepted from now on
        for rank in RANK.values():
            keys, first = self._older(connection, rank, before, most - len(found))
            found += keys
            none_older = min(none_older, first)
        self._none_older = none_older
        return found

    def _older(self, connection: apsw.Connection, rank: int, before: float, most: int) -> tuple[list[int], float]:
        """The same of one channel, and since when the first one waits that is younger, where that is known."""
        channel = self.channel(rank)
        (cursor,) = fetch_one(connection, "SELECT cursor FROM channels WHERE channel = ?", (channel,))
        if cursor >= self._highest[rank]:
            return [], NEVER
        found: list[int] = []
        passed, first = cursor, NEVER
        looked_at = 0
        for key, at in connection.execute(
            "SELECT key, at FROM messages WHERE key > ? AND key <= ? ORDER BY key LIMIT ?",
            (cursor, last_key(channel), MOST_LOOKED_AT),
        ):
            if at > before or len(found) == most:
                first = at
                break
            looked_at += 1
            if not self._results.has_ended(connection, key):
                found.append(key)
            passed = key
        if passed != cursor:
            connection.execute("UPDATE channels SET cursor = ? WHERE channel = ?", (passed, channel))
            self._passed(connection, rank, cursor, passed, looked_at)
        return found, before if looked_at == MOST_LOOKED_AT else first

    def _next_due(self, connection: apsw.Connection) -> float:
        soonest = NEVER
        for rank in RANK.values():
            (due,) = fetch_one(
                connection, "SELECT min(due) FROM inflight WHERE queue = ? AND rank = ?", (self.number, rank)
            )
            soonest = soonest if due is None else min(soonest, due)
        return soonest

    def waiting(self, reader: apsw.Connection) -> dict[Priority, Waiting]:
        """See `IMessageQueue.waiting`."""
        found: dict[Priority, Waiting] = {}
        for priority, rank in RANK.items():
            cursor, at = self._front(reader, rank)
            count = self._fresh[rank] + max(0, self._uncounted_to[rank] - cursor)
            found[priority] = Waiting(count, at)
        return found

    def _front(self, reader: apsw.Connection, rank: int) -> tuple[int, float | None]:
        """Up to where requests of the rank were fetched, and when the next one was accepted; None: there is none."""
        channel = self.channel(rank)
        (cursor,) = fetch_one(reader, "SELECT cursor FROM channels WHERE channel = ?", (channel,))
        row = fetch_one(
            reader,
            "SELECT at FROM messages WHERE key > ? AND key <= ? ORDER BY key LIMIT 1",
            (cursor, last_key(channel)),
        )
        return cursor, None if row is None else row[0]

    def depth(self, reader: apsw.Connection, now: float) -> Depth:
        """See `IMessageQueue.depth`. Requests cancelled while they waited count until a fetch passes over them."""
        ready = 0
        oldest: list[float] = []
        for rank in RANK.values():
            cursor, at = self._front(reader, rank)
            ready += self._fresh[rank] + max(0, self._uncounted_to[rank] - cursor)
            if at is not None:
                oldest.append(at)
        in_flight, delayed, due = fetch_one(
            reader,
            "SELECT count(*) FILTER (WHERE due IS NULL), count(*) FILTER (WHERE due > ?1),"
            " count(*) FILTER (WHERE due <= ?1) FROM inflight WHERE queue = ?2",
            (now, self.number),
        )
        return Depth(ready + due, delayed, in_flight, min(oldest) if oldest else None)
