# -*- test-case-name: tests.brokered.test_journaled -*-
"""Accepting for later in the embedded file: the record of a request, its outbox entry, and no look at anything.

So most requests are accepted while the broker is away. What has a deadline, a delay, a claim, a partition or
follow-ups, or is limited, needs a look or further rows: `SqliteLedger` accepts it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import apsw

from openhqm.codec import encode_request
from openhqm.messages import Acceptance, Request, Submission
from openhqm.policy.channels import Channels
from openhqm.policy.limits import Limits
from openhqm.policy.queue_names import queue_of
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.queue_rows import QueueRows
from openhqm.sqlite.waiting import Operation
from openhqm.sqlite.window import DUE

_APPEND = f"INSERT INTO outbox VALUES (?, {DUE}, ?, ?, 0, 0, 1)"


class Journal:
    """``fell_due`` is called with a time at which an entry falls due, once that is on disk."""

    def __init__(self, file: SqliteFile, channels: Channels, fell_due: Callable[[float], None]) -> None:
        self._file = file
        self._channels = channels
        self._fell_due = fell_due
        self._named: set[str] = set()

    def note_queue(self, connection: apsw.Connection, submission: Submission) -> None:
        """Within an operation of the file: it has the name of the submission's queue from now on."""
        queue = queue_of(self._channels.requests, submission)
        if queue not in self._named:
            connection.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", (queue,))
            self._file.after_commit(lambda: self._named.add(queue))

    def takes(self, submission: Submission, follow_ups: Sequence[Submission], limits: Limits) -> bool:
        """Whether record and entry are all that the submission needs."""
        return (
            submission.timeout is None
            and submission.not_before is None
            and submission.coalescing is None
            and submission.partition is None
            and not follow_ups
            and not limits.any
            and limits.age_seconds is None
            and queue_of(self._channels.requests, submission) in self._named
        )

    def appending(self, rows: QueueRows, key: int, submission: Submission, now: float) -> Operation[Acceptance]:
        """The operation that accepts such a submission as ``key``. The outbox publishes it."""
        id = self._file.ids.issue(key)
        body = encode_request(Request(id, now, submission))
        return partial(self._append, rows, (key, now, self._channels.of(submission)), body, Acceptance(id, now))

    def _append(
        self,
        rows: QueueRows,
        entry: tuple[int, float, str],
        body: bytes,
        acceptance: Acceptance,
        connection: apsw.Connection,
    ) -> Acceptance:
        connection.execute(_APPEND, entry)
        self._file.after_commit(partial(self._fell_due, entry[1]))
        return rows.append(entry[0], entry[1], body, acceptance, connection)
