# -*- test-case-name: tests.sqlite.test_journal,tests.brokered.test_journaled -*-
"""Accepting for later in the embedded file: one append, and no look at anything.

So most requests are accepted while the broker is away. Such a request is its record alone, as in the embedded queue:
the records for each channel of the broker have keys of their own, and are read in order behind a cursor. The outbox
adopts them once it may publish. What has a deadline, a delay, a claim, a partition or follow-ups, or is limited, needs
a look or further rows: `SqliteLedger` accepts it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import apsw
from twisted.internet.defer import Deferred

from openhqm.codec import encode_request
from openhqm.errors import NotDurable
from openhqm.messages import Acceptance, Priority, Request, Submission
from openhqm.policy.channels import Channels
from openhqm.policy.limits import Limits
from openhqm.policy.queue_names import MOST_QUEUES, queue_of
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.queue_rows import PORTION, QueueRows
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.schema import RANK, RANKS, last_key
from openhqm.sqlite.sql import fetch_all, fetch_one
from openhqm.sqlite.window import DUE

_RANK = RANK[Priority.NORMAL]
_NAME = "journal of "
"""What the name of a queue of such records begins with; its channel follows. No queue of requests has such a name."""
_FIND = "SELECT max(key), count(*) FROM (SELECT key FROM messages WHERE key > ? AND key <= ? ORDER BY key LIMIT ?)"
_ADOPT = (
    f"INSERT INTO outbox SELECT key, {DUE}, at, ?, 0, 0, 1 FROM messages m WHERE key > ? AND key <= ?"
    " AND NOT EXISTS (SELECT 1 FROM endings e WHERE e.key = m.key)"
)
Kind = tuple[str | None, str | None, Priority]
"""What says in which queue and channel a request waits: its endpoint, its share and its priority."""


def is_plain(submission: Submission, follow_ups: Sequence[Submission], limits: Limits) -> bool:
    """Whether it is accepted, where it has no claim, without a look at anything, and nothing is noted besides."""
    return not (
        submission.timeout is not None
        or submission.not_before is not None
        or submission.coalescing is not None
        or submission.partition is not None
        or follow_ups
        or limits.any
        or limits.ends_what_waits
    )


def _adopt(connection: apsw.Connection, channel: str, number: int, most: int) -> tuple[int, int, int]:
    """Entries for the next ``most`` records of a channel that have not ended; ``number`` is that of their queue.

    Returns the cursor before and after, and how many records lie in between.
    """
    rows = number * RANKS + _RANK
    (before,) = fetch_one(connection, "SELECT cursor FROM channels WHERE channel = ?", (rows,))
    last, count = fetch_one(connection, _FIND, (before, last_key(rows), most))
    if not count:
        return before, before, 0
    connection.execute(_ADOPT, (channel, before, last))
    connection.execute("UPDATE channels SET cursor = ? WHERE channel = ?", (last, rows))
    return before, last, count


class JournalRows(QueueRows):
    """The records for one channel. ``fell_due`` is called once a further one is on disk."""

    def __init__(self, file: SqliteFile, store: SqliteResults, channel: str, fell_due: Callable[[float], None]) -> None:
        super().__init__(file, store, _NAME + channel)
        self._fell_due = fell_due
        self._adopted, _ = self._front(file.connection, _RANK)

    def _added(self, rank: int, count: int) -> None:
        super()._added(rank, count)
        self._fell_due(0.0)

    def since(self, connection: apsw.Connection) -> float | None:
        """When the first of them was accepted; None: there is none."""
        return self._front(connection, _RANK)[1] if self._highest[_RANK] > self._adopted else None

    def count(self, reader: apsw.Connection) -> int:
        """How many there are. Those cancelled in the meantime count until the outbox passes over them."""
        return self.waiting(reader)[Priority.NORMAL].count

    def passed(self, connection: apsw.Connection, before: int, last: int, count: int) -> None:
        """Within an operation: the cursor has passed so many."""
        self._passed(connection, _RANK, before, last, count)
        self._file.after_commit(lambda: setattr(self, "_adopted", last))


class Journal:
    """``fell_due`` is called with a time at which an entry falls due, once that is on disk."""

    def __init__(
        self, file: SqliteFile, store: SqliteResults, channels: Channels, fell_due: Callable[[float], None]
    ) -> None:
        self._file = file
        self._store = store
        self._channels = channels
        self._fell_due = fell_due
        self._named: set[str] = set()
        self._rows: dict[str, JournalRows] = {}
        self._ready: dict[Kind, JournalRows] = {}
        self._preparing: set[Kind] = set()

    def start(self) -> None:
        """The file is open, and `adopt_all` was called where it has to be."""
        for channel, _ in self._kept(self._file.reader):
            self._open(channel)

    def _kept(self, connection: apsw.Connection) -> list[tuple[str, int]]:
        """The channels that have records in the file, or had, and the numbers of the queues of those."""
        rows = fetch_all(
            connection, "SELECT name, number FROM queues WHERE substr(name, 1, ?) = ?", (len(_NAME), _NAME)
        )
        return [(name.removeprefix(_NAME), number) for name, number in rows]

    def _open(self, channel: str) -> JournalRows:
        rows = self._rows.get(channel)
        if rows is None:
            rows = self._rows[channel] = JournalRows(self._file, self._store, channel, self._fell_due)
        return rows

    def note_queue(self, connection: apsw.Connection, submission: Submission) -> None:
        """Within an operation of the file: it has the name of the submission's queue from now on."""
        queue = queue_of(self._channels.requests, submission)
        if queue not in self._named:
            connection.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", (queue,))
            self._file.after_commit(lambda: self._named.add(queue))

    def knows_queue(self, submission: Submission) -> bool:
        """Whether the file has the name of the submission's queue."""
        return queue_of(self._channels.requests, submission) in self._named

    # Accepting

    def append(
        self, submission: Submission, follow_ups: Sequence[Submission], limits: Limits, now: float
    ) -> Deferred[Any] | None:
        """Fires with the `Acceptance` of a submission that needs no more than its record; None: it needs more."""
        if not is_plain(submission, follow_ups, limits):
            return None
        rows = self._ready.get((submission.endpoint, submission.share, submission.priority))
        if rows is None:
            self._prepare(submission)
            return None
        key = rows.next_key(_RANK)
        id = self._file.ids.issue(key)
        body = encode_request(Request(id, now, submission))
        return rows.append(key, now, body, Acceptance(id, now))

    def _prepare(self, submission: Submission) -> None:
        """The next submissions of its kind can be appended, once no transaction is open that may fail."""
        kind = submission.endpoint, submission.share, submission.priority
        if kind in self._preparing or len(self._ready) >= MOST_QUEUES:
            return
        self._preparing.add(kind)

        def prepare(connection: apsw.Connection) -> None:
            self.note_queue(connection, submission)
            self._file.after_commit(partial(self._be_ready, kind, self._channels.of(submission)))

        self._file.write(prepare).addBoth(self._prepared, kind)

    def _be_ready(self, kind: Kind, channel: str) -> None:
        try:
            self._ready[kind] = self._open(channel)
        except NotDurable:
            return  # the disk is full: a later submission tries it again

    def _prepared(self, result: Any, kind: Kind) -> None:
        self._preparing.discard(kind)
        if result is not None:
            result.trap(NotDurable)

    # What the outbox asks

    def adopt(self, connection: apsw.Connection, most: int) -> None:
        """Within an operation: entries for up to ``most`` records, the channel first whose record waits longest."""
        waiting = [(at, name) for name, rows in self._rows.items() if (at := rows.since(connection)) is not None]
        for _, channel in sorted(waiting):
            if most <= 0:
                break
            most -= self._pass_over(connection, channel, self._rows[channel].number, most)

    def adopt_all(self, connection: apsw.Connection) -> None:
        """Within an operation: entries for all of them. With many that takes long, once."""
        for channel, number in self._kept(connection):
            while self._pass_over(connection, channel, number, PORTION):
                pass

    def _pass_over(self, connection: apsw.Connection, channel: str, number: int, most: int) -> int:
        before, last, count = _adopt(connection, channel, number, most)
        if count and channel in self._rows:
            self._rows[channel].passed(connection, before, last, count)
        return count

    @property
    def holds(self) -> bool:
        """Whether there is something to adopt."""
        return any(rows.since(self._file.reader) is not None for rows in self._rows.values())

    def count(self, channel: str) -> int:
        """How many records there are for a channel."""
        rows = self._rows.get(channel)
        return 0 if rows is None else rows.count(self._file.reader)
