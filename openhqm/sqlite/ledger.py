# -*- test-case-name: tests.brokered.test_brokered -*-
"""The books in the embedded file for a queue elsewhere: see `brokered/ledger.py` for what each step means.

A request's row in ``messages`` is its record, as for the embedded queue; ``inflight`` holds its attempts. What is
marked stands in ``unpublished``. The file has one process at a time, so at a start every mark is an old one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import apsw
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime

from openhqm.codec import decode_reply, decode_request, encode_request
from openhqm.errors import DeliveryClosed
from openhqm.messages import (
    Acceptance,
    DeadLetter,
    Depth,
    IdempotencyClaim,
    Priority,
    Reply,
    Request,
    Submission,
)
from openhqm.policy.copies import Copy, Loan, NotYet, Recovered, Standing, next_attempt
from openhqm.policy.queue_names import priority_of, queue_of
from openhqm.policy.redrive import redriven
from openhqm.runtime.deferreds import deferred
from openhqm.sqlite.claims import drop_claim, take_claim
from openhqm.sqlite.dead_letters import DeadLetters
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.queue_rows import QueueRows
from openhqm.sqlite.schema import RANK, first_key, last_key
from openhqm.sqlite.sql import fetch_all, fetch_one
from openhqm.sqlite.store import Ledger as Store

MARK_SECONDS = 30.0
MOST_LOOKED_AT = 2000
_RANK = RANK[Priority.NORMAL]


class SqliteLedger:
    """``store`` is the result store in the same file, for what it notes within our transactions."""

    complete = True
    counts_returns = False
    durable = True
    warnings: Sequence[str] = ()

    def __init__(
        self, file: SqliteFile, store: Store, clock: IReactorTime, *, requests: str, dead_letters: str
    ) -> None:
        self._file = file
        self._store = store
        self._clock = clock
        self._requests = requests
        self._dead_letters = dead_letters
        self._named: set[str] = set()
        self.on_ending = store.on_ending

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be written now, or None."""
        return self._file.unavailable_reason

    def start(self) -> Deferred[None]:
        return maybeDeferred(self._start)

    def _start(self) -> None:
        self._file.open()
        # Whoever was publishing is gone: this process holds the lock now.
        self._file.connection.execute("UPDATE unpublished SET at = 0")
        # A name that no queue of the file has: what waits elsewhere is not to be lent from here.
        self._lanes = QueueRows(self._file, self._store, f"{self._requests} elsewhere", recorded=True)
        self._letter_lanes = QueueRows(self._file, self._store, self._dead_letters, recorded=False)
        self._letters = DeadLetters(self._file, self._letter_lanes)

    def when_probed(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return self._file.close()

    def follow(self, queue: str, look: Callable[[], None]) -> None:
        """There is no other process."""

    def number(self, correlation_id: str) -> int | None:
        return self._file.ids.number(correlation_id)

    # Accepting

    def record(self, submission: Submission, claim: IdempotencyClaim | None) -> Deferred[Copy | Acceptance]:
        now = self._clock.seconds()
        copy = self._new_copy(submission, now)

        def add(connection: apsw.Connection) -> Copy | Acceptance:
            if claim is not None:
                earlier = take_claim(connection, self._file.ids, claim, copy.number, now)
                if earlier is not None:
                    first = self._file.ids.number(earlier.correlation_id)
                    connection.execute("UPDATE unpublished SET told = 1 WHERE key = ?", (first,))
                    return earlier
            self._add(connection, copy, now, told=False)
            return copy

        return self._file.write(add)

    def withdraw(self, copy: Copy, claim: IdempotencyClaim | None) -> Deferred[bool]:
        def take_back(connection: apsw.Connection) -> bool:
            key = copy.number
            marked = fetch_one(connection, "SELECT 1 FROM unpublished WHERE key = ? AND told = 0", (key,))
            if marked is None or self._store.has_ended(connection, key):
                return False
            self._lanes.remove(connection, key)
            for table in ("inflight", "unpublished"):
                connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,))
            if claim is not None:
                drop_claim(connection, claim, key)
            return True

        return self._file.write(take_back)

    def note_published(self, copies: Sequence[tuple[int, int]]) -> Deferred[None]:
        def note(connection: apsw.Connection) -> None:
            # A mark that was set since, for a newer copy, stays.
            connection.executemany("DELETE FROM unpublished WHERE key = ? AND attempts = ?", copies)

        return self._file.write(note)

    def unpublished(self, most: int) -> Deferred[Sequence[Copy]]:
        now = self._clock.seconds()

        def take(connection: apsw.Connection) -> Sequence[Copy]:
            rows = fetch_all(
                connection,
                "SELECT u.key, attempts, body, due FROM unpublished u"
                " JOIN messages m ON m.key = u.key LEFT JOIN inflight i ON i.key = u.key"
                " WHERE u.at <= ? ORDER BY u.at LIMIT ?",
                (now - MARK_SECONDS, most),
            )
            connection.executemany("UPDATE unpublished SET at = ? WHERE key = ?", [(now, row[0]) for row in rows])
            return [
                Copy(key, decode_request(body), body, attempts, max(0.0, (due or now) - now))
                for key, attempts, body, due in rows
            ]

        return self._file.write(take)

    @deferred
    async def recover(self, queue: str | None, priority: Priority | None) -> Recovered:
        lane = self._lanes.lane(_RANK)
        after, marked = first_key(lane), 0
        while True:
            rows = fetch_all(
                self._file.reader,
                "SELECT m.key, CASE WHEN e.key IS NULL THEN body END FROM"
                " (SELECT key, body FROM messages WHERE key > ? AND key <= ? ORDER BY key LIMIT ?) m"
                " LEFT JOIN endings e ON e.key = m.key ORDER BY m.key",
                (after, last_key(lane), MOST_LOOKED_AT),
            )
            if not rows:
                return Recovered(marked)
            after = rows[-1][0]
            lost = [key for key, body in rows if body is not None and self._lay_in(queue, priority, body)]
            marked += await self._file.write(partial(self._mark_again, lost, queue is None))

    def _lay_in(self, queue: str | None, priority: Priority | None, body: bytes) -> bool:
        submission = decode_request(body).submission
        return queue is None or (queue_of(self._requests, submission), priority_of(submission)) == (queue, priority)

    def _mark_again(self, keys: Sequence[int], everything: bool, connection: apsw.Connection) -> int:
        before = connection.total_changes()
        connection.executemany(
            "INSERT INTO unpublished"
            " SELECT key, 0, coalesce((SELECT attempts FROM copies WHERE copies.key = m.key), 0), 1"
            " FROM messages m WHERE key = ? AND key NOT IN (SELECT key FROM endings)"
            # What is marked is being published just now, or was a moment ago. Where all is lost, that is no more.
            + (" ON CONFLICT DO UPDATE SET at = 0, told = 1" if everything else " ON CONFLICT DO NOTHING"),
            [(key,) for key in keys],
        )
        return connection.total_changes() - before

    def _new_copy(self, submission: Submission, now: float) -> Copy:
        key = self._lanes.next_key(_RANK)
        request = Request(self._file.ids.issue(key), now, submission)
        delay = max(0.0, submission.not_before - now) if submission.not_before is not None else 0.0
        return Copy(key, request, encode_request(request), delay=delay)

    def _add(self, connection: apsw.Connection, copy: Copy, now: float, *, told: bool) -> None:
        queue = queue_of(self._requests, copy.request.submission)
        if queue not in self._named:
            connection.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", (queue,))
            self._file.after_commit(lambda: self._named.add(queue))
        self._lanes.add(connection, copy.number, now, copy.body)
        if copy.delay > 0:
            self._lanes.hold(connection, copy.number, _RANK, now + copy.delay)
        if copy.request.deadline is not None:
            self._store.note_deadline(connection, copy.number, copy.request.deadline)
        self._mark(connection, copy, now, told)

    def _mark(self, connection: apsw.Connection, copy: Copy, now: float, told: bool) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO unpublished VALUES (?, ?, ?, ?)", (copy.number, now, copy.attempts, told)
        )

    def queues(self) -> Deferred[Sequence[str]]:
        return succeed([name for (name,) in fetch_all(self._file.reader, "SELECT name FROM queues ORDER BY name", ())])

    # Lending

    def begin(self, copy: Copy, returned: int) -> Deferred[Loan | NotYet | None]:
        return self._file.write(lambda connection: self._begin(connection, copy.number, copy.attempts))

    def _begin(self, connection: apsw.Connection, key: int, carried: int) -> Loan | NotYet | None:
        known = fetch_one(connection, "SELECT 1 FROM messages WHERE key = ?", (key,))
        if known is None or self._store.has_ended(connection, key):
            return None
        copy = fetch_one(connection, "SELECT attempts FROM copies WHERE key = ?", (key,))
        attempt, due = fetch_one(connection, "SELECT attempt, due FROM inflight WHERE key = ?", (key,)) or (0, None)
        following = next_attempt(Standing(copy[0] if copy else 0, attempt, due), carried, self._clock.seconds())
        if not isinstance(following, int):
            return following
        if carried:
            connection.execute("INSERT OR REPLACE INTO copies VALUES (?, ?)", (key, carried))
        self.count(connection, key, following)
        self._store.note_event(connection, key, "processing", {"attempt": following})
        return Loan(key, following, str(following))

    def count(self, connection: apsw.Connection, key: int, attempt: int) -> None:
        """Within an operation of the file: the attempt has begun, and so its copy was published."""
        connection.execute(
            "INSERT OR REPLACE INTO inflight VALUES (?, ?, ?, ?, NULL)", (key, self._lanes.number, _RANK, attempt)
        )
        connection.execute("DELETE FROM unpublished WHERE key = ?", (key,))

    def ending(self, number: int) -> Deferred[str | None]:
        row = fetch_one(self._file.reader, "SELECT reply FROM endings WHERE key = ?", (number,))
        return succeed(decode_reply(row[0]).status.value if row else None)

    def note_progress(self, loan: Loan, detail: dict[str, Any]) -> Deferred[None]:
        def note(connection: apsw.Connection) -> None:
            if self._is_open(connection, loan):
                self._store.note_event(connection, loan.number, "progress", detail)

        return self._file.write(note)

    # Settling

    def release(self, loan: Loan) -> Deferred[Copy | None]:
        def uncount(connection: apsw.Connection) -> Copy | None:
            if self._is_open(connection, loan):
                connection.execute("UPDATE inflight SET attempt = attempt - 1 WHERE key = ?", (loan.number,))
            return None

        return self._file.write(uncount)

    def hold(self, loan: Loan, delay: float, reason: str) -> Deferred[bool]:
        return self._file.write(lambda connection: self._note_retry(connection, loan, delay, reason))

    def renew(self, loan: Loan, request: Request, body: bytes, delay: float, reason: str) -> Deferred[Copy | None]:
        copy = Copy(loan.number, request, body, loan.attempt, delay)

        def note(connection: apsw.Connection) -> Copy | None:
            if not self._note_retry(connection, loan, delay, reason):
                return None
            connection.execute("INSERT OR REPLACE INTO copies VALUES (?, ?)", (loan.number, loan.attempt))
            self._mark(connection, copy, self._clock.seconds(), told=True)
            return copy

        return self._file.write(note)

    def _note_retry(self, connection: apsw.Connection, loan: Loan, delay: float, reason: str) -> bool:
        if not self._is_open(connection, loan):
            return False
        due = self._clock.seconds() + delay
        detail = {"attempt": loan.attempt, "next_attempt_at": due, "error": reason}
        self._store.note_event(connection, loan.number, "retrying", detail)
        connection.execute("UPDATE inflight SET due = ? WHERE key = ?", (due, loan.number))
        return True

    def end(self, loan: Loan, reply: Reply, letter: DeadLetter | None) -> Deferred[bool]:
        def finish(connection: apsw.Connection) -> bool:
            if not self._is_open(connection, loan):
                self._forget(connection, loan.number)
                return False
            return self.finish(connection, loan.number, reply, letter)

        return self._file.write(finish)

    def finish(self, connection: apsw.Connection, key: int, reply: Reply, letter: DeadLetter | None) -> bool:
        """Within an operation of the file: the ending, unless there is one, and whether there was none."""
        first = self._store.note_ending(connection, key, reply)
        if first and letter is not None:
            self._letters.bury(connection, letter)
        self._forget(connection, key)
        return first

    def let_go(self, loan: Loan) -> Deferred[None]:
        return self._file.write(lambda connection: self._forget(connection, loan.number))

    def _is_open(self, connection: apsw.Connection, loan: Loan) -> bool:
        """Whether the request has not ended. `DeliveryClosed` where the loan is not its latest attempt."""
        row = fetch_one(connection, "SELECT attempt FROM inflight WHERE key = ?", (loan.number,))
        if row is not None and row[0] != loan.attempt:
            raise DeliveryClosed(self._file.ids.issue(loan.number), "a later attempt has begun")
        return row is not None and not self._store.has_ended(connection, loan.number)

    def _forget(self, connection: apsw.Connection, key: int) -> None:
        for table in ("inflight", "copies", "unpublished", "told"):
            connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,))

    # Dead letters

    def bury(self, letter: DeadLetter) -> Deferred[None]:
        return self._file.write(lambda connection: self._letters.bury(connection, letter))

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return succeed(self._letters.listed(after, most))

    def redrive(self, number: int) -> Deferred[Copy]:
        return maybeDeferred(self._redrive, number)

    def _redrive(self, number: int) -> Deferred[Copy]:
        now = self._clock.seconds()
        copy = self._new_copy(redriven(self._letters.find(number)), now)

        def move(connection: apsw.Connection) -> Copy:
            self._letters.take(connection, number)
            self._add(connection, copy, now, told=True)
            return copy

        return self._file.write(move)

    def letters_depth(self) -> Deferred[Depth]:
        return maybeDeferred(self._letter_lanes.depth, self._file.reader, self._clock.seconds())
