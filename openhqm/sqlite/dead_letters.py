# -*- test-case-name: tests.queue.test_contracts -*-
"""The dead letters in the embedded file: a table of their own, numbered from 1; no number is given out twice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import apsw
from msgspec.structs import replace
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from openhqm.codec import decode_dead_letter, encode_dead_letter
from openhqm.errors import UnknownRequest
from openhqm.interfaces import DEAD_LETTER_PAGE_BYTES
from openhqm.messages import DeadLetter, Depth
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.sql import fetch_one, fetch_through

MOST_TRIMMED = 200
TRIMMED = "{count} dead letters were removed: queue.limits keeps no more of them, or not for so long"
_ATTEMPTS = "SELECT min(at), max(at) FROM events WHERE key = ? AND type = 'processing'"
LARGEST_NUMBER = 2**63 - 1  # an integer in SQLite holds no more


class DeadLetters:
    """Those in ``file``; ``limits`` says how many are kept, and for how long. It may be changed."""

    _log = Logger()

    def __init__(self, file: SqliteFile, limits: Limits = NO_LIMITS) -> None:
        self._file = file
        self.limits = limits

    def add(self, connection: apsw.Connection, letter: DeadLetter, key: int | None = None) -> None:
        """Within an operation of the file: add one. ``key`` is that of its request, whose events have the attempts."""
        if key is not None:
            first, last = fetch_one(connection, _ATTEMPTS, (key,))
            letter = replace(letter, first_attempt_at=first, last_attempt_at=last)
        connection.execute("INSERT INTO dead_letters (at, body) VALUES (?, ?)", (letter.at, encode_dead_letter(letter)))

    def take(self, connection: apsw.Connection, number: int) -> None:
        """Within an operation of the file: remove one. `UnknownRequest` where it was removed before."""
        if not _deleted(connection, "number = ?", (_checked(number),)):
            raise _unknown(number)

    def reject(self, letter: DeadLetter) -> Deferred[None]:
        """See `IMessageQueue.reject`."""
        return self._file.write(lambda connection: self.add(connection, letter))

    def drop(self, number: int) -> Deferred[None]:
        """Remove one. `UnknownRequest`."""
        return maybeDeferred(self._drop, number)

    def _drop(self, number: int) -> Deferred[None]:
        self.find(number)
        return self._file.write(lambda connection: self.take(connection, number))

    def trim(self, connection: apsw.Connection, now: float) -> int:
        """Within an operation of the file: remove some that are too old or too many; how many these are."""
        if not self.limits.trims:
            return 0
        most, seconds = self.limits.dead_letters, self.limits.dead_letter_seconds
        removed = 0
        if seconds is not None:
            oldest = "SELECT number FROM dead_letters WHERE at <= ? ORDER BY at LIMIT ?"
            removed += _deleted(connection, f"number IN ({oldest})", (now - seconds, MOST_TRIMMED))
        if most is not None:
            (count,) = fetch_one(connection, "SELECT count(*) FROM dead_letters")
            if count > most:
                first = "SELECT number FROM dead_letters ORDER BY number LIMIT ?"
                too_many = min(count - most, MOST_TRIMMED)
                removed += _deleted(connection, f"number IN ({first})", (too_many,))
        if removed:
            self._file.after_commit(partial(self._log.warn, TRIMMED, count=removed))
        return removed

    def listed(self, after: int, most: int) -> Sequence[tuple[int, DeadLetter]]:
        """Those numbered above ``after``, in order: see `IMessageQueue.dead_letters`."""
        read = 0

        def last(row: Any) -> bool:
            nonlocal read
            read += len(row[1])
            return read >= DEAD_LETTER_PAGE_BYTES

        rows = fetch_through(
            self._file.reader,
            "SELECT number, body FROM dead_letters WHERE number > ? ORDER BY number LIMIT ?",
            (min(after, LARGEST_NUMBER), most),
            last,
        )
        return [(number, decode_dead_letter(body)) for number, body in rows]

    def last(self) -> Deferred[int]:
        """The highest number that one was given."""
        return maybeDeferred(self._last)

    def _last(self) -> int:
        # SQLite keeps it, so that it gives out none twice (its manual, AUTOINCREMENT).
        row = fetch_one(
            self._file.reader, "SELECT seq FROM sqlite_sequence WHERE name IN ('dead_letters', 'sealed_dead_letters')"
        )
        return 0 if row is None or row[0] is None else int(row[0])

    def find(self, number: int) -> DeadLetter:
        """The one with this number; `UnknownRequest`."""
        row = fetch_one(self._file.reader, "SELECT body FROM dead_letters WHERE number = ?", (_checked(number),))
        if row is None:
            raise _unknown(number)
        return decode_dead_letter(row[0])

    def depth(self) -> Depth:
        """How many there are, and since when the oldest is there. Both are read from the index on ``at`` alone."""
        count, oldest = fetch_one(
            self._file.reader, "SELECT (SELECT count(*) FROM dead_letters), (SELECT min(at) FROM dead_letters)"
        )
        return Depth(count, 0, 0, oldest)


def _deleted(connection: apsw.Connection, which: str, values: tuple[Any, ...]) -> int:
    before = connection.total_changes()
    connection.execute(f"DELETE FROM dead_letters WHERE {which}", values)
    return connection.total_changes() - before


def _checked(number: int) -> int:
    if not 0 < number <= LARGEST_NUMBER:
        raise _unknown(number)
    return number


def _unknown(number: int) -> UnknownRequest:
    return UnknownRequest(f"dead letter {number}")
