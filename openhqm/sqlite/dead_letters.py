# -*- test-case-name: tests.queue.test_contracts -*-
"""The dead letters in the embedded file: messages of a queue of their own, numbered from 1."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from openhqm.codec import decode_dead_letter, encode_dead_letter
from openhqm.errors import UnknownRequest
from openhqm.messages import DeadLetter, Priority
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.queue_rows import QueueRows
from openhqm.sqlite.schema import RANK, first_key, last_key
from openhqm.sqlite.sql import fetch_all, fetch_one

_RANK = RANK[Priority.NORMAL]


class DeadLetters:
    """What lies in ``lanes``."""

    def __init__(self, file: SqliteFile, lanes: QueueRows) -> None:
        self._file = file
        self._lanes = lanes
        lane = lanes.lane(_RANK)
        self._first, self._last = first_key(lane), last_key(lane)

    def bury(self, connection: apsw.Connection, letter: DeadLetter) -> None:
        """Within an operation of the file: add one."""
        self._lanes.add(connection, self._lanes.next_key(_RANK), letter.at, encode_dead_letter(letter))

    def listed(self, after: int, most: int) -> Sequence[tuple[int, DeadLetter]]:
        """Those numbered above ``after``, in order."""
        rows = fetch_all(
            self._file.reader,
            "SELECT key, body FROM messages WHERE key > ? AND key <= ? ORDER BY key LIMIT ?",
            (self._first + after, self._last, most),
        )
        return [(key - self._first, decode_dead_letter(body)) for key, body in rows]

    def find(self, number: int) -> DeadLetter:
        """The one with this number; `UnknownRequest`."""
        row = fetch_one(self._file.reader, "SELECT body FROM messages WHERE key = ?", (self._key(number),))
        if row is None:
            raise _unknown(number)
        return decode_dead_letter(row[0])

    def take(self, connection: apsw.Connection, number: int) -> None:
        """Within an operation of the file: remove one. `UnknownRequest` where somebody was quicker."""
        key = self._key(number)
        if fetch_one(connection, "SELECT 1 FROM messages WHERE key = ?", (key,)) is None:
            raise _unknown(number)
        self._lanes.remove(connection, key)

    def _key(self, number: int) -> int:
        # Beyond the lane lie the messages of others.
        return self._first + number if 0 < number <= self._last - self._first else self._first


def _unknown(number: int) -> UnknownRequest:
    return UnknownRequest(f"dead letter {number}")
