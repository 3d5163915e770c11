# -*- test-case-name: tests.queue.test_contracts -*-
"""The queue in the embedded file: one append to accept, one transaction to settle.

The message of a request is also its record, so accepting writes one row. A loan is a row in ``inflight``
whose attempt was counted in the same transaction that lent it; leases are kept in memory, because a file has
one process at a time and a loan ends with the process that holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import apsw
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from openhqm.codec import encode_request
from openhqm.interfaces import IDelivery, IMessageQueue, QueueTraits
from openhqm.messages import (
    Acceptance,
    DeadLetter,
    Depth,
    IdempotencyClaim,
    Priority,
    Request,
    Submission,
)
from openhqm.policy.queue_names import MOST_QUEUES, holds_requests, queue_of
from openhqm.policy.redrive import redriven
from openhqm.runtime.deferreds import deferred
from openhqm.sqlite.claims import take_claim
from openhqm.sqlite.dead_letters import DeadLetters
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.local_queue import Place
from openhqm.sqlite.schema import HELD, RANK, RANKS, lane_of
from openhqm.sqlite.sql import fetch_all
from openhqm.sqlite.store import Ledger

TRAITS = QueueTraits(durable=True, ordered=True, native_priority=True, atomic_settle=True)


@implementer(IMessageQueue)
class SqliteQueue:
    """The queues in ``file``. A loan that is not extended for ``lease`` seconds is lent anew."""

    traits = TRAITS
    warnings: Sequence[str] = ()

    def __init__(
        self,
        file: SqliteFile,
        ledger: Ledger,
        clock: IReactorTime,
        *,
        requests: str,
        dead_letters: str,
        lease: float = 60.0,
    ) -> None:
        self._file = file
        self._ledger = ledger
        self._clock = clock
        self._lease = lease
        self._requests = requests
        self._dead_letters = dead_letters
        self._places: dict[str, Place] = {}
        self._by_number: dict[int, Place] = {}
        ledger.on_ending.append(self._ended)

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be written now, or None."""
        return self._file.unavailable_reason

    def start(self) -> Deferred[None]:
        return maybeDeferred(self._start)

    def _start(self) -> None:
        self._file.open()
        # Who held these loans is gone: this process holds the lock now.
        self._file.connection.execute("UPDATE inflight SET due = 0 WHERE due IS NULL")
        for name in (self._requests, self._dead_letters):
            self._place(name)

    @deferred
    async def stop(self) -> None:
        await gatherResults([place.stop() for place in self._places.values()])
        await self._file.close()

    def accept(self, submission: Submission, claim: IdempotencyClaim | None) -> Deferred[Acceptance]:
        now = self._clock.seconds()
        place = self._place(queue_of(self._requests, submission))
        rank = _rank(submission)
        due = submission.not_before
        if due is not None and due <= now:
            due = None
        key = place.lanes.next_key(rank if due is None else HELD)
        correlation_id = self._file.ids.issue(key)
        body = encode_request(Request(correlation_id, now, submission))
        acceptance = Acceptance(correlation_id, now)

        def add(connection: apsw.Connection) -> Acceptance:
            if claim is not None:
                earlier = take_claim(connection, self._file.ids, claim, key, now)
                if earlier is not None:
                    return earlier
            self._add(connection, place, key, now, body, rank, due)
            if submission.timeout is not None:
                self._ledger.note_deadline(connection, key, now + submission.timeout)
            return acceptance

        accepted = self._file.write(add)
        place.wake()
        return accepted

    def publish(self, queue: str, message: Request, *, priority: Priority, delay: float) -> Deferred[None]:
        now = self._clock.seconds()
        place = self._place(queue)
        due = now + delay if delay > 0 else None
        key = place.lanes.next_key(RANK[priority] if due is None else HELD)
        body = encode_request(message)
        rank = RANK[priority]
        published = self._file.write(lambda connection: self._add(connection, place, key, now, body, rank, due))
        place.wake()
        return published

    def receive(self, queue: str, most: int, *, in_order: bool = False) -> Deferred[Sequence[IDelivery]]:
        return self._place(queue).receive(most, in_order)

    def queues(self) -> Deferred[Sequence[str]]:
        return succeed([name for (name,) in fetch_all(self._file.reader, "SELECT name FROM queues ORDER BY name", ())])

    def depth(self, queue: str) -> Deferred[Depth]:
        return maybeDeferred(lambda: self._place(queue).lanes.depth(self._file.reader, self._clock.seconds()))

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return succeed(self._letters.listed(after, most))

    def redrive(self, number: int) -> Deferred[Acceptance]:
        return maybeDeferred(self._redrive, number)

    def _redrive(self, number: int) -> Deferred[Acceptance]:
        now = self._clock.seconds()
        submission = redriven(self._letters.find(number))
        place = self._place(queue_of(self._requests, submission))
        key = place.lanes.next_key(_rank(submission))

        def move(connection: apsw.Connection) -> Acceptance:
            self._letters.take(connection, number)
            new = Request(self._file.ids.issue(key), now, submission)
            self._add(connection, place, key, now, encode_request(new), _rank(submission), None)
            if submission.timeout is not None:
                self._ledger.note_deadline(connection, key, now + submission.timeout)
            return Acceptance(new.correlation_id, now)

        moved = self._file.write(move)
        place.wake()
        return moved

    @cached_property
    def _letters(self) -> DeadLetters:
        return DeadLetters(self._file, self._place(self._dead_letters).lanes)

    def _bury(self, connection: apsw.Connection, letter: DeadLetter) -> None:
        self._letters.bury(connection, letter)

    def _add(
        self,
        connection: apsw.Connection,
        place: Place,
        key: int,
        now: float,
        body: bytes,
        rank: int,
        due: float | None,
    ) -> None:
        place.lanes.add(connection, key, now, body)
        if due is not None:
            place.lanes.hold(connection, key, rank, due)
            self._file.after_commit(lambda: place.wake_at(due))

    def _place(self, queue: str) -> Place:
        place = self._places.get(queue)
        if place is None:
            if len(self._places) >= MOST_QUEUES:
                raise ValueError(f"more than {MOST_QUEUES} queues")
            recorded = holds_requests(self._requests, queue)
            place = Place(self._file, self._ledger, self._clock, queue, self._lease, recorded, self._bury)
            self._places[queue] = self._by_number[place.lanes.number] = place
        return place

    def _ended(self, key: int, status: str) -> None:
        place = self._by_number.get(lane_of(key) // RANKS)
        if place is not None:
            place.revoke(key, status)


def _rank(submission: Submission) -> int:
    """Within a partition the oldest goes first, whatever its priority."""
    return RANK[Priority.NORMAL if submission.partition is not None else submission.priority]
