# -*- test-case-name: tests.queue.test_contracts -*-
"""The rows of one queue in the embedded file: giving out keys, choosing what goes next, putting it back.

Everything here runs inside an operation of `SqliteFile.write`.
"""

from __future__ import annotations

import apsw

from openhqm.messages import Depth
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.schema import BY_PRIORITY, RANK, RANKS, first_key, lane_of, last_key
from openhqm.sqlite.sql import fetch_all, fetch_one
from openhqm.sqlite.store import Ledger

Row = tuple[int, int, bytes]
"""Key, attempt, body."""

MOST_LOOKED_AT = 1000
MOST_COUNTED = 100_000
NEVER = float("inf")


class QueueRows:
    """One queue's lanes. ``recorded`` says whether its messages are requests that the ledger knows."""

    def __init__(self, file: SqliteFile, ledger: Ledger, name: str, recorded: bool) -> None:
        self._ledger = ledger
        self._recorded = recorded
        self._file = file
        self._given: dict[int, int] = {}
        self._fresh: dict[int, int] = {}
        connection = file.connection
        connection.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", (name,))
        row = fetch_one(connection, "SELECT number FROM queues WHERE name = ?", (name,))
        self.number: int = row[0]
        for rank in range(RANKS):
            lane = self.lane(rank)
            connection.execute("INSERT OR IGNORE INTO lanes VALUES (?, ?, ?)", (lane, first_key(lane), first_key(lane)))
            first, last = first_key(lane), last_key(lane)
            given, taken = fetch_one(connection, "SELECT given, taken FROM lanes WHERE lane = ?", (lane,))
            (newest,) = fetch_one(connection, "SELECT max(key) FROM messages WHERE key > ? AND key <= ?", (first, last))
            self._given[rank] = max(given, newest or 0)
            self._fresh[rank] = self._count_fresh(connection, taken, newest or 0)

    def _count_fresh(self, connection: apsw.Connection, taken: int, newest: int) -> int:
        """How many messages lie behind the cursor; so many that counting would take long are told from their keys."""
        if newest - taken > MOST_COUNTED:
            return newest - taken
        (count,) = fetch_one(
            connection, "SELECT count(*) FROM messages WHERE key > ? AND key <= ?", (taken, max(taken, newest))
        )
        return int(count)

    def lane(self, rank: int) -> int:
        """The number of the lane for a rank."""
        return self.number * RANKS + rank

    def next_key(self, rank: int) -> int:
        """A key that was never given out before. Rows must be written in the order of asking."""
        self._given[rank] += 1
        return self._given[rank]

    def add(self, connection: apsw.Connection, key: int, at: float, body: bytes) -> None:
        """A message."""
        connection.execute("INSERT INTO messages VALUES (?, ?, ?)", (key, at, body))
        self._count(key, 1)

    def remove(self, connection: apsw.Connection, key: int) -> None:
        """A message that was never lent: gone, and its number is not given out again."""
        self._erase(connection, key)
        self._count(key, -1)

    def _erase(self, connection: apsw.Connection, key: int) -> None:
        connection.execute("UPDATE lanes SET given = max(given, ?) WHERE lane = ?", (key, lane_of(key)))
        connection.execute("DELETE FROM messages WHERE key = ?", (key,))

    def _count(self, key: int, change: int) -> None:
        rank = lane_of(key) % RANKS

        def count() -> None:
            self._fresh[rank] += change

        self._file.after_commit(count)

    def hold(self, connection: apsw.Connection, key: int, rank: int, due: float) -> None:
        """A message that is not to be lent before ``due``."""
        connection.execute("INSERT INTO inflight VALUES (?, ?, ?, 0, ?)", (key, self.number, rank, due))

    def put_back(self, connection: apsw.Connection, key: int, due: float, *, counted: bool) -> None:
        """The loan is over, the work is not. ``counted``: the attempt was one."""
        connection.execute(
            "UPDATE inflight SET due = ?, attempt = attempt - ? WHERE key = ?", (due, 0 if counted else 1, key)
        )

    def finish(self, connection: apsw.Connection, key: int) -> None:
        """The loan and the work are over. A request's row stays: it is its record until it expires."""
        connection.execute("DELETE FROM inflight WHERE key = ?", (key,))
        if not self._recorded:
            self._erase(connection, key)

    def lend(
        self, connection: apsw.Connection, most: int, now: float, in_order: bool = False
    ) -> tuple[list[Row], float]:
        """Choose what goes next and count its attempt. Also: when to look again, should this be all."""
        if in_order:
            held_up, due = self._held_up(connection, now)
            if held_up:
                return [], due
            most = 1
        rows: list[Row] = []
        look_again = NEVER
        for priority in BY_PRIORITY:
            rank = RANK[priority]
            if len(rows) < most:
                rows += self._lend_due(connection, rank, most - len(rows), now)
            if len(rows) < most:
                fresh, more = self._lend_fresh(connection, rank, most - len(rows))
                rows += fresh
                if more:
                    look_again = now
        if self._recorded:
            for key, attempt, _ in rows:
                self._ledger.note_event(connection, key, "processing", {"attempt": attempt})
        if len(rows) < most:
            look_again = min(look_again, self._next_due(connection))
        return rows, look_again

    def _held_up(self, connection: apsw.Connection, now: float) -> tuple[bool, float]:
        """Whether one is on loan or waits for its retry, and when that may be over."""
        for key, due in fetch_all(
            connection,
            "SELECT key, due FROM inflight WHERE queue = ? AND (due IS NULL OR due > ?) AND attempt > 0",
            (self.number, now),
        ):
            if due is None:
                return True, NEVER  # whoever settles it wakes the queue
            if not (self._recorded and self._ledger.has_ended(connection, key)):
                return True, due
            connection.execute("DELETE FROM inflight WHERE key = ?", (key,))
        return False, NEVER

    def _lend_due(self, connection: apsw.Connection, rank: int, most: int, now: float) -> list[Row]:
        rows: list[Row] = []
        for key, attempt, body in fetch_all(
            connection,
            "SELECT i.key, attempt + 1, body FROM inflight i JOIN messages m ON m.key = i.key"
            " WHERE queue = ? AND rank = ? AND due <= ? ORDER BY due LIMIT ?",
            (self.number, rank, now, most),
        ):
            if self._recorded and self._ledger.has_ended(connection, key):
                connection.execute("DELETE FROM inflight WHERE key = ?", (key,))
            else:
                connection.execute("UPDATE inflight SET attempt = ?, due = NULL WHERE key = ?", (attempt, key))
                rows.append((key, attempt, body))
        return rows

    def _lend_fresh(self, connection: apsw.Connection, rank: int, most: int) -> tuple[list[Row], bool]:
        """What lies behind the cursor; and whether the look ended before the lane did."""
        lane = self.lane(rank)
        (taken,) = fetch_one(connection, "SELECT taken FROM lanes WHERE lane = ?", (lane,))
        if taken >= self._given[rank]:
            return [], False
        rows: list[Row] = []
        cursor = taken
        looked_at = 0
        for key, body in connection.execute(
            "SELECT key, body FROM messages WHERE key > ? AND key <= ? ORDER BY key LIMIT ?",
            (taken, last_key(lane), MOST_LOOKED_AT),
        ):
            cursor = key
            looked_at += 1
            if not (self._recorded and self._ledger.has_ended(connection, key)):
                rows.append((key, 1, body))
                if len(rows) == most:
                    break
        for key, attempt, _ in rows:
            connection.execute("INSERT INTO inflight VALUES (?, ?, ?, ?, NULL)", (key, self.number, rank, attempt))
        if cursor != taken:
            connection.execute("UPDATE lanes SET taken = ? WHERE lane = ?", (cursor, lane))
            self._count(cursor, -looked_at)
        return rows, looked_at == MOST_LOOKED_AT

    def _next_due(self, connection: apsw.Connection) -> float:
        soonest = NEVER
        for rank in RANK.values():
            (due,) = fetch_one(
                connection, "SELECT min(due) FROM inflight WHERE queue = ? AND rank = ?", (self.number, rank)
            )
            soonest = soonest if due is None else min(soonest, due)
        return soonest

    def depth(self, reader: apsw.Connection, now: float) -> Depth:
        """See `IMessageQueue.depth`. Requests cancelled while they waited count until they are passed over."""
        ready = sum(self._fresh[rank] for rank in RANK.values())
        oldest: list[float] = []
        for rank in RANK.values():
            lane = self.lane(rank)
            (taken,) = fetch_one(reader, "SELECT taken FROM lanes WHERE lane = ?", (lane,))
            row = fetch_one(
                reader,
                "SELECT at FROM messages WHERE key > ? AND key <= ? ORDER BY key LIMIT 1",
                (taken, last_key(lane)),
            )
            if row is not None:
                oldest.append(row[0])
        in_flight, delayed, due = fetch_one(
            reader,
            "SELECT count(*) FILTER (WHERE due IS NULL), count(*) FILTER (WHERE due > ?1),"
            " count(*) FILTER (WHERE due <= ?1) FROM inflight WHERE queue = ?2",
            (now, self.number),
        )
        return Depth(ready + due, delayed, in_flight, min(oldest) if oldest else None)
