# -*- test-case-name: tests.queue.test_contracts -*-
"""The queue in the embedded file: one append to accept, one transaction to settle.

The message of a request is also its record, so accepting writes one row. A delivery that is out is a row in
``inflight``, and its attempt was counted in the transaction that chose it. Leases are kept in memory: the file has one
process at a time, so a lease ends with its process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import apsw
from msgspec.structs import replace
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from openhqm.codec import encode_request, size_with
from openhqm.errors import QueueFull
from openhqm.interfaces import IDelivery, IMessageQueue, IShares, QueueTraits
from openhqm.messages import (
    Acceptance,
    Child,
    DeadLetter,
    Depth,
    IdempotencyClaim,
    Load,
    Priority,
    Request,
    Submission,
    Waiting,
)
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.policy.queue_names import MOST_QUEUES, priority_of, queue_of
from openhqm.policy.redrive import redriven
from openhqm.queue.limits import accept_within
from openhqm.queue.sharing import SharedQueues
from openhqm.runtime.deferreds import deferred
from openhqm.sqlite.catching_up import CatchingUp
from openhqm.sqlite.children import Children
from openhqm.sqlite.claims import drop_claim, take_claim
from openhqm.sqlite.coalescing import CoalesceKeys
from openhqm.sqlite.dead_letters import DeadLetters
from openhqm.sqlite.delayed import UNBEGUN, delay, delayed_since, oldest_delayed
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.held import Held
from openhqm.sqlite.load import SqliteLoad
from openhqm.sqlite.local_queue import LocalQueue
from openhqm.sqlite.queue_rows import QueueRows
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.schema import DELAYED, RANK, queue_of_key
from openhqm.sqlite.sql import fetch_all
from openhqm.sqlite.timeline import Timeline
from openhqm.sqlite.waiting import Refused

TRAITS = QueueTraits(durable=True, ordered=True, atomic_settle=True)


@implementer(IMessageQueue)
class SqliteQueue:
    """The queues in ``file``, and ``results`` for the records in it.

    A delivery that is not extended for ``lease`` seconds is lost, and its request delivered again.
    """

    traits = TRAITS
    warnings: Sequence[str] = ()

    def __init__(
        self,
        file: SqliteFile,
        results: SqliteResults,
        clock: IReactorTime,
        *,
        requests: str,
        dead_letters: str,
        lease: float = 60.0,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self._file = file
        self.together = file.together
        self._results = results
        self._clock = clock
        self._lease = lease
        self._requests = requests
        self._dead_letters = dead_letters
        self._letters = DeadLetters(file, limits)
        results.within_sweep.append(self._letters.trim)
        self._queues: dict[str, LocalQueue] = {}
        self._shared = SharedQueues(clock, lambda name: self._queue(name).waiters)
        self._by_number: dict[int, LocalQueue] = {}
        results.on_ending.append(self._ended)
        self._timeline = Timeline(clock)
        results.within_sweep.append(self._timeline.note)
        self._load = SqliteLoad(file, results, limits, clock)
        self._held = Held(file, results, clock, self._load, self._make_due)
        self._coalescing = CoalesceKeys(file, results)
        self._children = Children(file, results, clock, self._held)
        self._ordering = CatchingUp(file, self._order)
        results.within_sweep.append(self._ordering.run)
        results.within_sweep.append(
            lambda connection, now: self._load.end_some(connection, now, self._older, self._oldest)
        )

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be written now, or None."""
        return self._file.unavailable_reason

    def start(self) -> Deferred[None]:
        return maybeDeferred(self._start)

    def _start(self) -> None:
        self._file.open()
        self._file.write_now(self._timeline.resume)
        # The process that had these deliveries is gone: this one holds the lock now.
        self._file.write_now(lambda connection: connection.execute("UPDATE inflight SET due = 0 WHERE due IS NULL"))
        self._load.start()
        self._coalescing.start()
        self._children.start()
        self._queue(self._requests)
        if self._load.limits.ends_what_waits:
            self._open_all()
        self._file.write_now(self._order)

    def _open_all(self) -> None:
        """What has waited longest may wait in any queue."""
        for name in self._names()[: MOST_QUEUES - 1]:
            self._queue(name)

    def _order(self, connection: apsw.Connection) -> None:
        """What is not found by its key is found by an index, where a limit asks for it."""
        connection.execute(UNBEGUN if self._load.limits.ends_what_waits else "DROP INDEX IF EXISTS unbegun")

    @deferred
    async def stop(self) -> None:
        await self._shared.stop()
        await gatherResults([queue.stop() for queue in self._queues.values()])
        await self._file.close()

    def accept(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Deferred[Acceptance]:
        if self._load.limits.any:
            accepted = partial(self._accept, submission, claim, follow_ups, children)
            return accept_within(self._load.limits, size_with(submission, children), accepted)
        return self._accept(submission, claim, follow_ups, children)

    def load(self) -> Deferred[Load | None]:
        return succeed(self._load.read(self._file.reader))

    def limit(self, limits: Limits) -> None:
        """Other limits hold from now on. What waits is counted, which takes long once where nothing was limited."""
        self._letters.limits = limits
        self._load.limit(limits)
        if limits.ends_what_waits:
            self._open_all()
        self._ordering.changed()

    def _oldest(self, connection: apsw.Connection) -> int | None:
        """The request that has waited longest for its first attempt, which the caller ends."""
        found = [each for queue in self._queues.values() if (each := queue.rows.oldest(connection)) is not None]
        found += oldest_delayed(connection, self._clock.seconds())
        _, key = min(found, default=(0.0, None))
        connection.execute("DELETE FROM inflight WHERE key = ?", (key,))
        return key

    def _older(self, connection: apsw.Connection, before: float, most: int) -> Sequence[int]:
        """Up to ``most`` keys of what waits for its first attempt since ``before`` or earlier."""
        found: list[int] = []
        for queue in self._queues.values():
            found += queue.rows.older(connection, before, self._clock.seconds(), most - len(found))
        return found + delayed_since(connection, before, most - len(found))

    def _accept(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission],
        children: Sequence[Child],
    ) -> Deferred[Any]:
        """Fires with the `Acceptance`, or, where there are limits, with the `QueueFull` that refuses it."""
        now = self._clock.seconds()
        queue = self._queue(queue_of(self._requests, submission))
        rank = RANK[priority_of(submission)]
        due = submission.not_before
        if due is not None and due <= now:
            due = None
        plain = due is None and submission.coalescing is None and not children
        key = queue.rows.next_key(rank if plain else DELAYED)
        correlation_id = self._file.ids.issue(key)
        body = encode_request(Request(correlation_id, now, submission))
        acceptance = Acceptance(correlation_id, now)
        if (
            plain
            and submission.timeout is None
            and not follow_ups
            and (claim is None or not claim.repeats_only)
            and not self._load.limits.any
        ):
            accepted: Deferred[Any] = queue.rows.append(key, now, body, acceptance, claim)
        else:
            adding = self._adding(submission, claim, follow_ups, children, queue, key, due, body, acceptance)
            accepted = self._file.write(adding)
        queue.wake()
        return accepted

    def _adding(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission],
        children: Sequence[Child],
        queue: LocalQueue,
        key: int,
        not_before: float | None,
        body: bytes,
        acceptance: Acceptance,
    ) -> Callable[[apsw.Connection], Acceptance | QueueFull | Refused]:
        """The operation that accepts a request with whatever it can have."""
        now = acceptance.submitted_at
        rank = RANK[priority_of(submission)]
        held: Sequence[tuple[QueueRows, int, Request]] = ()
        if follow_ups:
            held = [self._held_back(follow_up, now) for follow_up in follow_ups]
            ids = tuple(request.correlation_id for _, _, request in held)
            acceptance = replace(acceptance, follow_ups=ids)
        steps = [(self._held_back(child.submission, now), child) for child in children] if children else ()
        size = sum((len(encode_request(request)) for (_, _, request), _ in steps), len(body))

        def add(connection: apsw.Connection) -> Acceptance | QueueFull | Refused:
            if claim is not None:
                earlier = take_claim(connection, self._file.ids, claim, key, now)
                if earlier is not None:
                    return earlier
            if self._load.limits.any:
                refusal = self._load.refusal(connection, size, self._oldest)
                if refusal is not None:
                    if claim is not None:
                        drop_claim(connection, claim, key)
                    return refusal
                self._load.add(connection, len(body))
            queue.rows.add(connection, key, now, body)
            due = not_before
            if submission.coalescing is not None:
                due = self._coalescing.take(connection, submission.coalescing, key, now)
            if due is not None and not steps:
                delay(connection, key, rank, due)
                self._file.after_commit(partial(queue.wake_at, due))
            if submission.timeout is not None:
                self._results.note_deadline(connection, key, now + submission.timeout)
            for each in held:
                self._held.add(connection, key, self._keep(connection, *each))
            if steps:
                found = [(self._keep(connection, *each), child) for each, child in steps]
                self._children.add(connection, key, found)
            return acceptance

        return add

    def _keep(self, connection: apsw.Connection, rows: QueueRows, key: int, request: Request) -> int:
        """Record a request that is held back; its key."""
        body = encode_request(request)
        self._load.add(connection, len(body))
        rows.add(connection, key, request.submitted_at, body)
        return key

    def _held_back(self, submission: Submission, now: float) -> tuple[QueueRows, int, Request]:
        """A follow-up has a key that no fetch comes by before the request is due."""
        rows = self._queue(queue_of(self._requests, submission)).rows
        key = rows.next_key(DELAYED)
        return rows, key, Request(self._file.ids.issue(key), now, submission)

    def _make_due(self, connection: apsw.Connection, key: int, request: Request, due: float) -> None:
        """A request that was held back may be delivered from ``due`` on."""
        delay(connection, key, RANK[priority_of(request.submission)], due)
        queue = self._by_number.get(queue_of_key(key))
        if queue is not None:
            self._file.after_commit(queue.wake if due <= self._clock.seconds() else partial(queue.wake_at, due))

    def receive(
        self, queue: str, most: int, *, in_order: bool = False, shares: IShares | None = None
    ) -> Deferred[Sequence[IDelivery]]:
        if shares is not None:
            return self._shared.receive(queue, most, shares)
        return self._queue(queue).receive(most, in_order)

    def queues(self) -> Deferred[Sequence[str]]:
        return succeed(self._names())

    def _names(self) -> list[str]:
        return [name for (name,) in fetch_all(self._file.reader, "SELECT name FROM queues ORDER BY name", ())]

    def waiting(self, queue: str) -> Deferred[Mapping[Priority, Waiting]]:
        return maybeDeferred(lambda: self._queue(queue).rows.waiting(self._file.reader))

    def depth(self, queue: str) -> Deferred[Depth]:
        if queue == self._dead_letters:
            return maybeDeferred(self._letters.depth)
        return maybeDeferred(lambda: self._queue(queue).rows.depth(self._file.reader, self._clock.seconds()))

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return maybeDeferred(self._letters.listed, after, most)

    def reject(self, letter: DeadLetter) -> Deferred[None]:
        return self._letters.reject(letter)

    def last_dead_letter(self) -> Deferred[int]:
        return self._letters.last()

    def drop_dead_letter(self, number: int) -> Deferred[None]:
        return self._letters.drop(number)

    def redrive(self, number: int) -> Deferred[Acceptance]:
        return maybeDeferred(self._redrive, number)

    def _redrive(self, number: int) -> Deferred[Acceptance]:
        now = self._clock.seconds()
        submission = redriven(self._letters.find(number))
        queue = self._queue(queue_of(self._requests, submission))
        key = queue.rows.next_key(RANK[priority_of(submission)])

        def move(connection: apsw.Connection) -> Acceptance:
            self._letters.take(connection, number)
            new = Request(self._file.ids.issue(key), now, submission)
            body = encode_request(new)
            self._load.add(connection, len(body))
            queue.rows.add(connection, key, now, body)
            if submission.timeout is not None:
                self._results.note_deadline(connection, key, now + submission.timeout)
            return Acceptance(new.correlation_id, now)

        moved = self._file.write(move)
        queue.wake()
        return moved

    def _queue(self, name: str) -> LocalQueue:
        queue = self._queues.get(name)
        if queue is None:
            if len(self._queues) >= MOST_QUEUES:
                raise ValueError(f"more than {MOST_QUEUES} queues")
            queue = LocalQueue(self._file, self._results, self._letters, self._clock, name, self._lease)
            self._queues[name] = self._by_number[queue.rows.number] = queue
        return queue

    def _ended(self, key: int, status: str) -> None:
        queue = self._by_number.get(queue_of_key(key))
        if queue is not None:
            queue.ended(key, status)
