# -*- test-case-name: tests.brokered.test_brokered -*-
"""The ledger in the embedded file, for a queue over a broker: see `openhqm.queue.ledger` for what each step means.

A request's row in ``messages`` is its record, as for the embedded queue, and holds its body until it expires;
``inflight`` holds its attempts. The file has one process at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import apsw
from msgspec.structs import replace
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime

from openhqm.codec import decode_reply, encode_request, size_with
from openhqm.errors import LeaseLost
from openhqm.messages import Acceptance, Child, DeadLetter, IdempotencyClaim, Load, Priority, Reply, Request, Submission
from openhqm.policy.channels import Channels
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.policy.redrive import redriven
from openhqm.queue.ledger import Attempt, Incoming, Outgoing
from openhqm.queue.limits import accept_within
from openhqm.sqlite.claims import drop_claim, take_claim
from openhqm.sqlite.coalescing import CoalesceKeys
from openhqm.sqlite.dead_letters import DeadLetters
from openhqm.sqlite.entries import EntryAppends
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.held import Held
from openhqm.sqlite.journal import Journal
from openhqm.sqlite.ledger_children import LedgerChildren
from openhqm.sqlite.ledger_losses import LedgerLosses
from openhqm.sqlite.load import SqliteLoad
from openhqm.sqlite.outbox_rows import OutboxRows
from openhqm.sqlite.queue_rows import QueueRows
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.schema import RANK
from openhqm.sqlite.sql import fetch_all, fetch_one
from openhqm.sqlite.unbegun import Unbegun

_RANK = RANK[Priority.NORMAL]


class SqliteLedger:
    """``store`` is the result store in the same file, for what it notes within our transactions.

    ``reply_channel`` is where workers without a store report: what is lost with it may have been endings. None: there
    are no such workers. ``window``: see `OutboxRows`.
    """

    complete = True
    durable = True
    warnings: Sequence[str] = ()

    def __init__(
        self,
        file: SqliteFile,
        store: SqliteResults,
        clock: IReactorTime,
        *,
        channels: Channels,
        reply_channel: str | None = None,
        limits: Limits = NO_LIMITS,
        window: int | None = None,
    ) -> None:
        self._file = file
        self.together = file.together
        self._store = store
        self._clock = clock
        self._channels = channels
        self.counts_redeliveries = reply_channel is not None
        self.has_workers = False
        self._journal = Journal(file, store, channels, self._fell_due)
        self._load = SqliteLoad(file, store, limits, clock)
        self.unbegun = Unbegun(file, clock, lambda: self._load.limits.ends_what_waits, self._journal.adopt_all)
        self.outbox = OutboxRows(file, store, clock, channels, self._fell_due, self.unbegun, self._journal, window)
        losses = LedgerLosses(file, self.outbox, reply_channel, lambda: self._fell_due(clock.seconds()))
        self.open_channels, self.recover, self.returned = losses.open_channels, losses.recover, losses.returned
        self.next_due = partial(maybeDeferred, self.outbox.next_due)
        self.on_ending = store.on_ending
        self.on_due: list[Callable[[float], None]] = []
        store.within_ending.append(self.outbox.ended)
        letters = self._letters = DeadLetters(file, limits)
        self.reject, self.drop_dead_letter, self.last_dead_letter = letters.reject, letters.drop, letters.last
        self.dead_letters = partial(maybeDeferred, self._letters.listed)
        self.dead_letters_depth = partial(maybeDeferred, self._letters.depth)
        store.within_sweep += [self._letters.trim, self._end_some]
        self._held = Held(file, store, clock, self._load, self.outbox.make_due)
        self._coalescing = CoalesceKeys(file, store)
        kept = self._load, self._journal, self._held, self.unbegun
        self._children = LedgerChildren(file, store, clock, *kept, self._new)

    @property
    def keeps_unbegun(self) -> bool:
        """``has_workers``: one without a store has reported."""
        return self.counts_redeliveries and not self.has_workers

    @property
    def alone(self) -> bool:
        return not self.has_workers

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be written now, or None."""
        return self._file.unavailable_reason

    def start(self) -> Deferred[None]:
        return maybeDeferred(self._start)

    def _start(self) -> None:
        self._file.open()
        # A name that no embedded queue has: what waits in a broker is not to be received from here.
        self._rows = QueueRows(self._file, self._store, f"{self._channels.requests} in a broker")
        self._children.start(self._rows)
        self._load.start()
        self._coalescing.start()
        self.unbegun.start()  # before what was claimed is due at once
        self.outbox.start(self._rows.number)
        self.has_workers = fetch_one(self._file.reader, "SELECT 1 FROM steps LIMIT 1") is not None

    def when_probed(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return self._file.close()

    def follow(self, queue: str, missed: Callable[[], None]) -> None:
        """There is no other process."""

    def number(self, correlation_id: str) -> int | None:
        return self._file.ids.number(correlation_id)

    def now(self) -> float:
        """The time of this store."""
        return self._clock.seconds()

    def to_ours(self, moment: float) -> float:
        return moment

    def _fell_due(self, due: float) -> None:
        for call in self.on_due:
            call(due)

    # Accepting

    def record(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
        *,
        at_once: bool = True,
    ) -> Deferred[Outgoing | Acceptance]:
        if not at_once and claim is None and not children:
            appended = self._journal.append(submission, follow_ups, self._load.limits, self._clock.seconds())
            if appended is not None:
                return appended
        recorded: Callable[[], Deferred[Any]] = partial(self._record, submission, claim, follow_ups, at_once)
        if children:
            recorded = partial(self._children.record, submission, claim, follow_ups, children)
        if not self._load.limits.any:
            return recorded()
        return accept_within(self._load.limits, size_with(submission, children), recorded)

    def load(self) -> Deferred[Load | None]:
        return succeed(self._load.read(self._file.reader))

    def limit(self, limits: Limits) -> None:
        self._letters.limits = limits
        wanted = self._load.limits.ends_what_waits
        self._load.limit(limits)
        if wanted != limits.ends_what_waits:
            self.unbegun.changed()

    def _record(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission],
        at_once: bool,
    ) -> Deferred[Any]:
        """Fires with the `Outgoing`, with the `Acceptance` of the request that has the claim, or with a `QueueFull`."""
        now = self._clock.seconds()
        outgoing = self._new(submission, now)
        if at_once and claim is None and self.outbox.adds_at_once(submission, follow_ups, self._load.limits):
            return self._rows.appends_for(outgoing.number, EntryAppends).record(outgoing, now)
        held = [self._new(follow_up, now) for follow_up in follow_ups] if follow_ups else []
        if held:
            outgoing = replace(outgoing, follow_ups=tuple(each.request.correlation_id for each in held))

        def add(connection: apsw.Connection) -> Any:
            if claim is not None:
                earlier = take_claim(connection, self._file.ids, claim, outgoing.number, now)
                if isinstance(earlier, Acceptance):
                    first = self._file.ids.number(earlier.correlation_id)
                    connection.execute("UPDATE outbox SET told = 1 WHERE key = ?", (first,))
                if earlier is not None:
                    return earlier
            refusal = self._load.refusal(connection, len(outgoing.body), self.unbegun.oldest)
            if refusal is not None:
                if claim is not None:
                    drop_claim(connection, claim, outgoing.number)
                return refusal
            for each in held:
                self._held.add(connection, outgoing.number, self._children.keep(connection, each))
            if submission.coalescing is not None:
                postponed = self._coalescing.placed(connection, outgoing)
                return self._add(connection, postponed, now, told=True, at_once=False)
            return self._add(connection, outgoing, now, told=not at_once, at_once=at_once)

        return self._file.write(add)

    def withdraw(self, outgoing: Outgoing, claim: IdempotencyClaim | None) -> Deferred[bool]:
        def take_back(connection: apsw.Connection) -> bool:
            key = outgoing.number
            if self._store.has_ended(connection, key) or not self.outbox.is_unknown(connection, key):
                return False
            self._load.remove(connection, key)
            self._rows.remove(connection, key)
            self.outbox.forget(connection, key)
            self._held.forget(connection, key)
            if claim is not None:
                drop_claim(connection, claim, key)
            return True

        return self._file.write(take_back)

    def redrive(self, number: int) -> Deferred[Outgoing]:
        return maybeDeferred(self._redrive, number)

    def _redrive(self, number: int) -> Deferred[Outgoing]:
        outgoing = self._new(redriven(self._letters.find(number)), now := self._clock.seconds())

        def move(connection: apsw.Connection) -> Outgoing:
            self._letters.take(connection, number)
            return self._add(connection, outgoing, now, told=True)

        return self._file.write(move)

    def _end_some(self, connection: apsw.Connection, now: float) -> int:
        self.unbegun.catch_up(connection)
        return self._load.end_some(connection, now, self.unbegun.older, self.unbegun.oldest)

    def _new(self, submission: Submission, now: float) -> Outgoing:
        key = self._rows.next_key(_RANK)
        request = Request(self._file.ids.issue(key), now, submission)
        return Outgoing(key, request, self._channels.of(submission), encode_request(request))

    def _add(
        self, connection: apsw.Connection, outgoing: Outgoing, now: float, *, told: bool, at_once: bool = True
    ) -> Outgoing:
        request = outgoing.request
        self._journal.note_queue(connection, request.submission)
        self._load.add(connection, len(outgoing.body))
        self._rows.add(connection, outgoing.number, now, outgoing.body)
        if request.deadline is not None:
            self._store.note_deadline(connection, outgoing.number, request.deadline)
        waits = self.outbox.add(connection, outgoing, now, told, at_once)
        return replace(outgoing, waits=True) if waits else outgoing

    def queues(self) -> Deferred[Sequence[str]]:
        return succeed([name for (name,) in fetch_all(self._file.reader, "SELECT name FROM queues ORDER BY name", ())])

    # The outbox

    def published(self, entries: Sequence[tuple[int, int]]) -> Deferred[None]:
        return self._file.write(lambda connection: self.outbox.published(connection, entries))

    def not_published(self, entries: Sequence[tuple[int, int]]) -> Deferred[None]:
        return self._file.write(lambda connection: self.outbox.not_published(connection, entries))

    def take_due(self, most: int) -> Deferred[Sequence[Outgoing]]:
        return self._file.write(lambda connection: self.outbox.take_due(connection, most))

    def postpone(self, incoming: Incoming, delay: float) -> Deferred[bool]:
        def move(connection: apsw.Connection) -> bool:
            if not self._is_current(connection, incoming.number, incoming.generation):
                return False
            self.outbox.publish_again(connection, incoming.number, delay)
            return True

        return self._file.write(move)

    def count(self, queue: str) -> Deferred[tuple[int, int]]:
        return maybeDeferred(self.outbox.count, queue)

    # Working

    def begin(self, incoming: Incoming) -> Deferred[Attempt | None]:
        return self._file.write(lambda connection: self._begin(connection, incoming.number, incoming.generation))

    def _begin(self, connection: apsw.Connection, key: int, generation: int) -> Attempt | None:
        if not self._is_current(connection, key, generation):
            self.outbox.passed_over(connection, key)
            return None
        row = fetch_one(connection, "SELECT attempt FROM inflight WHERE key = ?", (key,))
        attempt = (row[0] if row else 0) + 1
        self.count_attempt(connection, key, attempt)
        self._store.note_event(connection, key, "processing", {"attempt": attempt})
        return Attempt(key, attempt, str(attempt))

    def _is_current(self, connection: apsw.Connection, key: int, generation: int) -> bool:
        """Whether a message of that generation is worth anything."""
        known = fetch_one(connection, "SELECT 1 FROM messages WHERE key = ?", (key,))
        if known is None or self._store.has_ended(connection, key):
            return False
        return generation >= self.outbox.generation(connection, key)

    def count_attempt(self, connection: apsw.Connection, key: int, attempt: int) -> None:
        """Within an operation of the file: the attempt has begun, and so its message was published."""
        connection.execute(
            "INSERT OR REPLACE INTO inflight VALUES (?, ?, ?, ?, NULL)", (key, self._rows.number, _RANK, attempt)
        )
        self.outbox.begun(connection, key)
        if attempt:
            self.unbegun.remove(connection, key)
        else:
            self.unbegun.add_again(connection, key)

    def ending(self, number: int) -> Deferred[str | None]:
        row = fetch_one(self._file.reader, "SELECT reply FROM endings WHERE key = ?", (number,))
        return succeed(decode_reply(row[0]).status.value if row else None)

    def note_progress(self, attempt: Attempt, detail: dict[str, Any]) -> Deferred[None]:
        def note(connection: apsw.Connection) -> None:
            if self._is_open(connection, attempt):
                self._store.note_event(connection, attempt.number, "progress", detail)

        return self._file.write(note)

    # Settling

    def release(self, attempt: Attempt) -> Deferred[bool]:
        def uncount(connection: apsw.Connection) -> bool:
            if self._is_open(connection, attempt):
                self.uncount(connection, attempt.number)
                self.outbox.returned(connection, attempt.number)
            return True

        return self._file.write(uncount)

    def uncount(self, connection: apsw.Connection, key: int) -> None:
        """Within an operation of the file: the attempt does not count."""
        connection.execute("UPDATE inflight SET attempt = attempt - 1 WHERE key = ?", (key,))
        (attempt,) = fetch_one(connection, "SELECT attempt FROM inflight WHERE key = ?", (key,))
        if not attempt:
            self.unbegun.add_again(connection, key)

    def retry(self, attempt: Attempt, body: bytes, delay: float, reason: str) -> Deferred[None]:
        def note(connection: apsw.Connection) -> None:
            if self._is_open(connection, attempt):
                due = self._clock.seconds() + delay
                self.note_retry(connection, attempt.number, attempt.attempt, due, reason)

        return self._file.write(note)

    def note_retry(
        self, connection: apsw.Connection, key: int, attempt: int, due: float, reason: str, at: float | None = None
    ) -> None:
        """Within an operation of the file: the next attempt begins at ``due``, with a new message."""
        detail = {"attempt": attempt, "next_attempt_at": due, "error": reason}
        self._store.note_event(connection, key, "retrying", detail, at)
        self.outbox.publish_again(connection, key, due - self._clock.seconds())

    def end(self, attempt: Attempt, reply: Reply, letter: DeadLetter | None) -> Deferred[bool]:
        def finish(connection: apsw.Connection) -> bool:
            return self._is_open(connection, attempt) and self.finish(connection, attempt.number, reply, letter)

        return self._file.write(finish)

    def finish(self, connection: apsw.Connection, key: int, reply: Reply, letter: DeadLetter | None) -> bool:
        """Within an operation of the file: the ending, unless there is one, and whether there was none."""
        first = self._store.note_ending(connection, key, reply)
        if first and letter is not None:
            self._letters.add(connection, letter, key)
        return first

    def let_go(self, attempt: Attempt) -> Deferred[None]:
        def check(connection: apsw.Connection) -> None:
            if self._is_open(connection, attempt):
                raise LeaseLost(self._file.ids.issue(attempt.number), "it has not ended after all")

        return self._file.write(check)

    def _is_open(self, connection: apsw.Connection, attempt: Attempt) -> bool:
        """Whether the request has not ended. `LeaseLost` where this is not its latest attempt."""
        row = fetch_one(connection, "SELECT attempt FROM inflight WHERE key = ?", (attempt.number,))
        if row is not None and row[0] != attempt.attempt:
            raise LeaseLost(self._file.ids.issue(attempt.number), "a later attempt has begun")
        return row is not None and not self._store.has_ended(connection, attempt.number)
