# -*- test-case-name: tests.queue.test_contracts,tests.sqlite.test_local_queue -*-
"""One queue of the embedded file as this process sees it: the callers of `receive`, and the deliveries that are out."""

from __future__ import annotations

from typing import Any

import apsw
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.codec import decode_request
from openhqm.errors import NotDurable, UnreadableMessage
from openhqm.messages import DeadLetter, Reply
from openhqm.queue.delivery import Delivery
from openhqm.queue.leases import Leases
from openhqm.queue.waiters import RETRY_SECONDS, Fetched, Waiters
from openhqm.runtime.timer_queue import TimerQueue
from openhqm.sqlite.dead_letters import DeadLetters
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.queue_rows import QueueRows, Row
from openhqm.sqlite.results import SqliteResults


class LocalQueue:
    """The queue ``name``. A lease lasts ``lease`` seconds. Each of its `Steps` is one transaction."""

    _log = Logger()

    def __init__(
        self,
        file: SqliteFile,
        results: SqliteResults,
        letters: DeadLetters,
        clock: IReactorTime,
        name: str,
        lease: float,
    ) -> None:
        self.clock = clock
        self.lease = lease
        self.rows = QueueRows(file, results, name)
        self._file = file
        self._results = results
        self._letters = letters
        self._name = name
        self.waiters = Waiters(name, clock, self._fetch)
        self._leases = Leases(clock, lease, self._lease_lost)
        self._again = TimerQueue(clock)
        self.receive = self.waiters.receive
        self.wake = self.waiters.wake
        self.wake_at = self.waiters.wake_at

    def stop(self) -> Deferred[Any]:
        """Deliver nothing more; the callers of `receive` are cancelled.

        Fires once what a fetch still brings is released. The file has to stay open until then.
        """
        self._leases.stop()
        self._again.stop()
        return self.waiters.stop()

    def ended(self, key: int, status: str) -> None:
        """The request has ended, from whatever cause: the work on it is in vain."""
        delivery = self._leases.get(key)
        if delivery is not None:
            delivery.revoke(status)
        elif self.waiters.in_order:
            self.wake()  # what waited behind it may be delivered

    def _fetch(self, most: int, in_order: bool) -> Deferred[Fetched]:
        fetched = self._file.write(lambda connection: self.rows.fetch(connection, most, self.clock.seconds(), in_order))
        return fetched.addCallback(self._fetched, 1 if in_order else most)

    def _fetched(self, found: tuple[list[Row], float], most: int) -> Fetched:
        rows, again = found
        lease_end = self.clock.seconds() + self.lease
        deliveries = [each for row in rows if (each := self._delivery(row, lease_end)) is not None]
        return Fetched(deliveries, more=len(rows) == most, again=again)

    def _delivery(self, row: Row, lease_end: float) -> Delivery | None:
        key, attempt, body = row
        try:
            request = decode_request(body)
        except UnreadableMessage as error:
            # Its row stays in the file, out of every worker's reach, where a person can look at it.
            self._log.error("message {key} of {queue} is unreadable: {error}", key=key, queue=self._name, error=error)
            return None
        delivery = Delivery(request, attempt, self, key, lease_end)
        self._leases.add(key, delivery)
        return delivery

    def _lease_lost(self, delivery: Delivery) -> None:
        """Deliver the request again. Where the disk does not take that, it is repeated until the disk does."""
        key: int = delivery.handle

        def reschedule(connection: apsw.Connection) -> None:
            self.rows.reschedule(connection, key, self.clock.seconds())
            self._file.after_commit(self.wake)

        def not_written(failure: Failure) -> None:
            failure.trap(NotDurable)
            self._again.at(self.clock.seconds() + RETRY_SECONDS, lambda: self._lease_lost(delivery))

        self._file.write(reschedule).addErrback(not_written)

    # Steps

    def retry(self, delivery: Delivery, delay: float, reason: str) -> Deferred[None]:
        """See `Steps.retry`."""
        key: int = delivery.handle
        due = self.clock.seconds() + delay
        detail = {"attempt": delivery.attempt, "next_attempt_at": due, "error": reason}

        def retry(connection: apsw.Connection) -> None:
            if self._results.has_ended(connection, key):
                self.rows.finish(connection, key)
                return
            self._results.note_event(connection, key, "retrying", detail)
            self.rows.reschedule(connection, key, due)
            self._file.after_commit(lambda: self.wake_at(due))

        return self._file.write(retry)

    def release(self, delivery: Delivery) -> Deferred[None]:
        """See `Steps.release`."""
        key: int = delivery.handle

        def release(connection: apsw.Connection) -> None:
            self.rows.release(connection, key, self.clock.seconds())
            self._file.after_commit(self.wake)

        return self._file.write(release)

    def end(self, delivery: Delivery, reply: Reply, letter: DeadLetter | None) -> Deferred[bool]:
        """See `Steps.end`."""
        key: int = delivery.handle

        def end(connection: apsw.Connection) -> bool:
            first = self._results.note_ending(connection, key, reply)
            if first and letter is not None:
                self._letters.add(connection, letter, key)
            self.rows.finish(connection, key)
            return first

        return self._file.write(end)

    def acknowledge(self, delivery: Delivery) -> Deferred[None]:
        """See `Steps.acknowledge`."""
        key: int = delivery.handle
        return self._file.write(lambda connection: self.rows.finish(connection, key))

    def progress(self, delivery: Delivery, detail: dict[str, Any]) -> Deferred[None]:
        """See `Steps.progress`."""
        key: int = delivery.handle

        def note(connection: apsw.Connection) -> None:
            if not self._results.has_ended(connection, key):
                self._results.note_event(connection, key, "progress", detail)

        return self._file.write(note)

    def extend(self, delivery: Delivery) -> None:
        """Leases are kept in memory alone: there is nothing to write."""

    def closed(self, delivery: Delivery) -> None:
        """See `Steps.closed`."""
        self._leases.discard(delivery.handle, delivery)
        if self.waiters.in_order:
            self.wake()  # what waited behind it may be delivered
