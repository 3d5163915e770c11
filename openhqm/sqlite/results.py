# -*- test-case-name: tests.queue.test_contracts,tests.sqlite.test_results -*-
"""Records and replies in the embedded file, which the embedded queue writes within its own transactions.

`SqliteResults` is the result store. Its ``note_*`` methods are for the queue in the same file: they run inside an
operation of `SqliteFile.write`, so that "reply durable" and "request done" are one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import apsw
import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from openhqm.codec import HEAD_BYTES, decode_reply, encode_reply, tenant_of
from openhqm.errors import AlreadyEnded, ExpiredRequest, NotDurable, UnknownRequest
from openhqm.interfaces import IResultStore
from openhqm.messages import Event, IdempotencyClaim, Record, Reply, Status
from openhqm.policy.history import PIECE_BYTES, PIECE_EVENTS, check_progress
from openhqm.queue.endings import cancelled, past_deadline
from openhqm.queue.watchers import Watchers
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.reactor_budget import ReactorBudget
from openhqm.sqlite.childless import Childless
from openhqm.sqlite.claims import let_expire
from openhqm.sqlite.ending_log import SqliteEndingLog
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.schema import channel_of, last_key, queue_of_key
from openhqm.sqlite.shrinking import shrink
from openhqm.sqlite.sql import fetch_all, fetch_one

SWEEP_SECONDS = 1.0
SWEEP_ROWS = 200
MOST_IN_ONE_TURN = 4  # look-ups, while a commit is under way: in the next turn it may be over, and work go on

# One statement is one look at the file: a request, and its ending or else its last event, if it has one.
_FIND = (
    f"SELECT m.at, coalesce(substr(m.body, 1, {HEAD_BYTES}), x''), e.expires, e.reply, v.at, v.detail"
    " FROM messages m LEFT JOIN endings e ON e.key = m.key"
    " LEFT JOIN events v ON v.key = m.key AND e.key IS NULL AND v.type <> 'progress'"
    " WHERE m.key = ? ORDER BY v.number DESC LIMIT 1"
)
_NOTE = "INSERT INTO events VALUES (?, ?, ?, ?, ?)"
_LAST_NUMBERS = "SELECT key, max(number) FROM events WHERE key BETWEEN ? AND ? GROUP BY key"


@implementer(IResultStore)
class SqliteResults:
    """The store half of the embedded file. Endings are kept for ``ttl`` seconds."""

    def __init__(self, file: SqliteFile, clock: IReactorTime, ttl: float) -> None:
        self._file = file
        self._clock = clock
        self._ttl = ttl
        self._watchers = Watchers()
        self.log = SqliteEndingLog(file, clock)
        self._budget = ReactorBudget(clock, MOST_IN_ONE_TURN)
        self._keeper: Any = None
        self._keeper_due = float("inf")
        self._sweep: Any = None
        self._running = False
        self.on_ending: list[Callable[[int, str], None]] = []
        self.within_sweep: list[Callable[[apsw.Connection, float], int]] = [self.log.trim, shrink]
        self.on_never_fetched: dict[int, Callable[[int], None]] = {}
        """By queue: called within an operation with the key of a message that is deleted, and lies above its cursor."""
        self.within_ending: list[Callable[[apsw.Connection, int, Reply], None]] = []
        self.children = Childless()

    # IResultStore

    def find(self, correlation_id: str) -> Deferred[Record]:
        if self._file.committing and not self._budget.try_acquire():
            return self._budget.acquire().addCallback(lambda _: self._find(correlation_id))
        return maybeDeferred(self._find, correlation_id)

    def history(self, correlation_id: str, after: int) -> Deferred[Sequence[Event]]:
        return maybeDeferred(self._history, correlation_id, after)

    def watch(self, correlation_id: str, listener: Callable[[Event], None]) -> Callable[[], None]:
        return self._watchers.add(correlation_id, listener)

    @deferred
    async def cancel(self, correlation_id: str) -> Record:
        before = self._find(correlation_id)
        await self.end(correlation_id, cancelled(before.correlation_id, self._clock.seconds(), before.attempt))
        return before

    def let_expire(self, claims: Sequence[IdempotencyClaim]) -> Deferred[None]:
        now = self._clock.seconds()
        return self._file.write(lambda connection: let_expire(connection, claims, now))

    # For targets that finish a request later

    def completion_token(self, correlation_id: str) -> str:
        return self._file.ids.completion_token(correlation_id)

    @deferred
    async def end(self, correlation_id: str, reply: Reply) -> None:
        key = self._open(correlation_id)
        if not await self._file.write(lambda connection: self.note_ending(connection, key, reply)):
            raise AlreadyEnded(correlation_id, self._find(correlation_id).status.value)

    @deferred
    async def progress(self, correlation_id: str, detail: dict[str, Any]) -> None:
        key = self._open(correlation_id)
        # One that is refused within the transaction has that undone, and run again for all others in it.
        check_progress(self._last_number(self._file.reader, key) + 1, msgspec.json.encode(detail))

        def note(connection: apsw.Connection) -> bool:
            if self.has_ended(connection, key):
                return False
            self.note_event(connection, key, "progress", detail)
            return True

        if not await self._file.write(note):
            raise AlreadyEnded(correlation_id, self._find(correlation_id).status.value)

    def _open(self, correlation_id: str) -> int:
        before = self._find(correlation_id)
        if before.reply is not None:
            raise AlreadyEnded(before.correlation_id, before.status.value)
        return self._key(correlation_id)

    # For the queue in the same file, within its transactions

    def note_deadline(self, connection: apsw.Connection, key: int, due: float) -> None:
        """The request ends with TIMEOUT when ``due`` comes first."""
        connection.execute("INSERT OR IGNORE INTO deadlines VALUES (?, ?)", (due, key))
        self._file.after_commit(lambda: self._arm(due))

    def note_event(
        self, connection: apsw.Connection, key: int, type: str, detail: dict[str, Any], at: float | None = None
    ) -> None:
        """Add an event to the history; `ValueError` past its limits. ``at`` is when it was, where that is not now."""
        text = msgspec.json.encode(detail)
        number = self._last_number(connection, key) + 1
        if type == "progress":
            check_progress(number, text)
        event = Event(number, type, self._clock.seconds() if at is None else at, detail)
        connection.execute(_NOTE, (key, number, type, event.at, text))
        self._file.after_commit(lambda: self._tell(key, event))
        if type != "progress":
            self.children.happened(connection, key, type, detail, event.at)

    def note_first_attempts(self, connection: apsw.Connection, keys: Sequence[int]) -> None:
        """The first attempt begins at each of these requests, whose keys ascend: as `note_event`, in less time."""
        now, detail = self._clock.seconds(), {"attempt": 1}
        text = msgspec.json.encode(detail)
        earlier = dict(fetch_all(connection, _LAST_NUMBERS, (keys[0], keys[-1])))  # of progress from outside
        numbers = [(key, earlier.get(key, 1) + 1) for key in keys]
        connection.executemany(_NOTE, [(key, number, "processing", now, text) for key, number in numbers])
        for key in keys:
            self.children.happened(connection, key, "processing", detail, now)

        def tell() -> None:
            if self._watchers:
                for key, number in numbers:
                    self._tell(key, Event(number, "processing", now, detail))

        self._file.after_commit(tell)

    def note_step(self, connection: apsw.Connection, key: int, type: str, detail: dict[str, Any], at: float) -> None:
        """Add what has happened to one of its steps to the history of a request."""
        event = Event(self._last_number(connection, key) + 1, type, at, detail)
        connection.execute(_NOTE, (key, event.number, type, at, msgspec.json.encode(detail)))
        self._file.after_commit(lambda: self._tell(key, event))

    def note_ending(self, connection: apsw.Connection, key: int, reply: Reply) -> bool:
        """Record the ending unless there is one. False: there was, and the reply is dropped."""
        number = self._last_number(connection, key) + 1
        before = connection.total_changes()
        connection.execute(
            "INSERT OR IGNORE INTO endings VALUES (?, ?, ?, ?)",
            (key, number, self._clock.seconds() + self._ttl, encode_reply(reply)),
        )
        if connection.total_changes() == before:
            return False
        self.log.note(connection, key, reply)
        for call in self.within_ending:
            call(connection, key, reply)
        self.children.ended(connection, key, reply)
        self._file.after_commit(partial(self._ended, key, number, reply))
        return True

    def has_ended(self, connection: apsw.Connection, key: int) -> bool:
        """Whether there is an ending."""
        return fetch_one(connection, "SELECT 1 FROM endings WHERE key = ?", (key,)) is not None

    # Time: deadlines and expiry

    def start(self) -> None:
        """Begin to keep deadlines and to let what has expired go."""
        self._running = True
        self.log.start()
        self._arm(self._clock.seconds())
        self._sweep = self._clock.callLater(SWEEP_SECONDS, self._sweep_expired)

    def stop(self) -> None:
        """Stop both."""
        self._running = False
        for call in (self._keeper, self._sweep):
            if call is not None and call.active():
                call.cancel()
        self._keeper = self._sweep = None

    def _arm(self, due: float) -> None:
        """See to it that the keeper runs when ``due`` comes."""
        if due >= self._keeper_due or not self._running:
            return
        if self._keeper is not None and self._keeper.active():
            self._keeper.cancel()
        self._keeper_due = due
        self._keeper = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._keep_deadlines)

    def _keep_deadlines(self) -> None:
        self._keeper = None
        self._keeper_due = float("inf")
        self._file.write(self._end_overdue).addCallbacks(self._arm, self._later)

    def _later(self, failure: Any) -> None:
        failure.trap(NotDurable)
        if self._running:
            self._arm(self._clock.seconds() + SWEEP_SECONDS)

    def _end_overdue(self, connection: apsw.Connection) -> float:
        """End what is past its deadline; the answer is when to look again."""
        now = self._clock.seconds()
        rows = fetch_all(
            connection, "SELECT due, key FROM deadlines WHERE due <= ? ORDER BY due LIMIT ?", (now, SWEEP_ROWS)
        )
        for due, key in rows:
            connection.execute("DELETE FROM deadlines WHERE due = ? AND key = ?", (due, key))
            if self._exists(connection, key) and not self.has_ended(connection, key):
                reply = past_deadline(self._file.ids.issue(key), now, self.attempts(connection, key))
                self.note_ending(connection, key, reply)
        row = fetch_one(connection, "SELECT min(due) FROM deadlines")
        return float("inf") if row[0] is None else float(row[0])

    def _sweep_expired(self) -> None:
        self._sweep = None
        self._file.write(self._delete_expired).addCallbacks(self._sweep_again, self._sweep_failed)

    def _sweep_again(self, deleted: int) -> None:
        if self._running:
            delay = SWEEP_SECONDS if deleted < SWEEP_ROWS else 0.01
            self._sweep = self._clock.callLater(delay, self._sweep_expired)

    def _sweep_failed(self, failure: Any) -> None:
        failure.trap(NotDurable)
        self._sweep_again(0)

    def _delete_expired(self, connection: apsw.Connection) -> int:
        now = self._clock.seconds()
        keys = fetch_all(
            connection, "SELECT key FROM endings WHERE expires <= ? ORDER BY expires LIMIT ?", (now, SWEEP_ROWS)
        )
        for (key,) in keys:
            # The number of the last one given out must outlive its row, or it would be given out again.
            for (cursor,) in fetch_all(
                connection,
                "UPDATE channels SET highest = max(highest, ?) WHERE channel = ? RETURNING cursor",
                (key, channel_of(key)),
            ):
                if key > cursor and (queue := queue_of_key(key)) in self.on_never_fetched:
                    self.on_never_fetched[queue](key)
            for table in ("inflight", "events", "endings", "messages"):
                connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,))
            self.children.forget(connection, key)
        expired = "SELECT digest FROM claims WHERE expires <= ? ORDER BY expires LIMIT ?"
        connection.execute(f"DELETE FROM claims WHERE digest IN ({expired})", (now, SWEEP_ROWS))
        claims = connection.changes()
        return max(len(keys), claims, *(call(connection, now) for call in self.within_sweep))

    # Reading

    def _key(self, correlation_id: str) -> int:
        key = self._file.ids.number(correlation_id)
        if key is None:
            raise UnknownRequest(correlation_id)
        return key

    def _find(self, correlation_id: str) -> Record:
        key = self._key(correlation_id)
        correlation_id = correlation_id.lower()  # as it was given out
        found = fetch_one(self._file.reader, _FIND, (key,))
        if found is None:
            raise self._gone(correlation_id, key)
        submitted_at, head, expires, text, updated_at, detail = found
        tenant, children = tenant_of(head), self.children.states(self._file.reader, key)
        if text is not None:
            reply = decode_reply(text)
            return Record(
                correlation_id,
                reply.status,
                submitted_at,
                reply.completed_at,
                reply.attempt,
                None,
                reply,
                expires,
                tenant,
                children,
            )
        if detail is None:
            return Record(correlation_id, Status.PENDING, submitted_at, submitted_at, tenant=tenant, children=children)
        detail = msgspec.json.decode(detail)
        return Record(
            correlation_id,
            Status.PROCESSING,
            submitted_at,
            updated_at,
            detail.get("attempt", 0),
            detail.get("next_attempt_at"),
            tenant=tenant,
            children=children,
        )

    def _history(self, correlation_id: str, after: int) -> list[Event]:
        key = self._key(correlation_id)
        reader = self._file.reader
        with reader:  # one snapshot for all three looks
            message = fetch_one(reader, "SELECT at FROM messages WHERE key = ?", (key,))
            if message is None:
                raise self._gone(correlation_id, key)
            events = [Event(1, "pending", message[0])] if after < 1 else []
            size = 0
            for number, type, at, detail in fetch_all(
                reader,
                "SELECT number, type, at, detail FROM events WHERE key = ? AND number > ? ORDER BY number LIMIT ?",
                (key, after, PIECE_EVENTS - len(events)),
            ):
                events.append(Event(number, type, at, msgspec.json.decode(detail)))
                size += len(detail)
                if size >= PIECE_BYTES:
                    break
            if size >= PIECE_BYTES or len(events) == PIECE_EVENTS:
                return events
            ending = fetch_one(reader, "SELECT number, reply FROM endings WHERE key = ?", (key,))
        if ending is not None and ending[0] > after:
            reply = decode_reply(ending[1])
            events.append(Event(ending[0], reply.status.value.lower(), reply.completed_at, reply=reply))
        return events

    def _gone(self, correlation_id: str, key: int) -> Exception:
        channel = channel_of(key)
        reader = self._file.reader
        highest = fetch_one(reader, "SELECT highest FROM channels WHERE channel = ?", (channel,))
        newer = fetch_one(reader, "SELECT 1 FROM messages WHERE key > ? AND key <= ? LIMIT 1", (key, last_key(channel)))
        if newer is not None or (highest is not None and key <= highest[0]):
            return ExpiredRequest(correlation_id)
        return UnknownRequest(correlation_id)

    def _exists(self, connection: apsw.Connection, key: int) -> bool:
        return fetch_one(connection, "SELECT 1 FROM messages WHERE key = ?", (key,)) is not None

    def attempts(self, connection: apsw.Connection, key: int) -> int:
        """How many attempts at the request have begun."""
        row = fetch_one(connection, "SELECT attempt FROM inflight WHERE key = ?", (key,))
        return row[0] if row else 0

    def _last_number(self, connection: apsw.Connection, key: int) -> int:
        row = fetch_one(connection, "SELECT max(number) FROM events WHERE key = ?", (key,))
        return row[0] or 1

    def _tell(self, key: int, event: Event) -> None:
        if self._watchers:
            self._watchers.tell(self._file.ids.issue(key), event)

    def _ended(self, key: int, number: int, reply: Reply) -> None:
        status = reply.status.value
        for call in self.on_ending:
            call(key, status)
        if self._watchers:
            self._watchers.tell(reply.correlation_id, Event(number, status.lower(), reply.completed_at, reply=reply))
