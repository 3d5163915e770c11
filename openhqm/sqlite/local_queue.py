# -*- test-case-name: tests.queue.test_contracts,tests.sqlite.test_local_queue -*-
"""Waiters from one queue of the embedded file: who waits for work, and which loans are out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.codec import decode_request
from openhqm.errors import DeliveryClosed, NotDurable, UnreadableMessage
from openhqm.interfaces import IDelivery
from openhqm.messages import DeadLetter, Reply, Request
from openhqm.queue.waiters import RETRY_SECONDS, Fetched, Waiter, Waiters
from openhqm.runtime.deferreds import deferred
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.queue_rows import QueueRows, Row
from openhqm.sqlite.store import Ledger

Bury = Callable[[apsw.Connection, DeadLetter], None]


class Place:
    """One queue: its lanes, whoever waits in `receive`, and the loans of this process."""

    _log = Logger()

    def __init__(
        self,
        file: SqliteFile,
        ledger: Ledger,
        clock: IReactorTime,
        name: str,
        lease: float,
        recorded: bool,
        bury: Bury,
    ) -> None:
        self.file = file
        self.ledger = ledger
        self.clock = clock
        self.recorded = recorded
        self.bury = bury
        self.lanes = QueueRows(file, ledger, name, recorded)
        self._name = name
        self._lease = lease
        self._loans: dict[int, SqliteDelivery] = {}
        self._stopped = False
        self._waiters = Waiters(name, clock, self._look)
        self.wake = self._waiters.wake
        self.wake_at = self._waiters.wake_at
        self._lease_check: Any = None

    def receive(self, most: int, in_order: bool = False) -> Waiter:
        """See `IMessageQueue.receive`."""
        return self._waiters.receive(most, in_order)

    def _look(self, most: int, in_order: bool) -> Deferred[Fetched]:
        lent = self.file.write(lambda connection: self.lanes.lend(connection, most, self.clock.seconds(), in_order))
        return lent.addCallback(self._lent, 1 if in_order else most)

    def _lent(self, found: tuple[list[Row], float], most: int) -> Fetched:
        rows, again = found
        deliveries = [delivery for row in rows if (delivery := self._delivery(*row)) is not None]
        return Fetched(deliveries, more=len(rows) == most, again=again)

    def _delivery(self, key: int, attempt: int, body: bytes) -> SqliteDelivery | None:
        try:
            request = decode_request(body)
        except UnreadableMessage as error:
            # It stays in the file, on loan to nobody, where a person can look at it.
            self._log.error("message {key} of {queue} is unreadable: {error}", key=key, queue=self._name, error=error)
            return None
        delivery = SqliteDelivery(self, key, request, attempt)
        self._loans[key] = delivery
        if self._lease_check is None:
            self._lease_check = self.clock.callLater(self._lease, self._check_leases)
        return delivery

    def forget(self, key: int) -> None:
        """The loan is over."""
        self._loans.pop(key, None)
        if self._waiters.in_order:
            self._waiters.wake()  # what waited behind it may go

    def lease_end(self) -> float:
        """When a lease that starts now ends."""
        return self.clock.seconds() + self._lease

    def revoke(self, key: int, status: str) -> None:
        """The request has ended; whoever works on it may stop."""
        loan = self._loans.get(key)
        if loan is not None:
            loan.revoke(status)
        elif self._waiters.in_order:
            self._waiters.wake()  # what waited behind it may go

    def _check_leases(self) -> None:
        self._lease_check = None
        now = self.clock.seconds()
        for loan in [loan for loan in self._loans.values() if loan.lease_end <= now]:
            if loan.lose():
                self._log.warn("the lease on {id} was lost", id=loan.request.correlation_id, attempt=loan.attempt)
        if self._loans and not self._stopped:
            soonest = min(loan.lease_end for loan in self._loans.values())
            # Never at once: a loan that is being settled just now stays in the books until that is on disk.
            self._lease_check = self.clock.callLater(max(RETRY_SECONDS, soonest - now), self._check_leases)

    @deferred
    async def stop(self) -> None:
        """Lend nothing more; who waits is told.

        Fires once what was just being lent to them is given back; the file is closed after that.
        """
        self._stopped = True
        await self._waiters.stop()
        if self._lease_check is not None and self._lease_check.active():
            self._lease_check.cancel()


@implementer(IDelivery)
class SqliteDelivery:
    """A request on loan. Whatever settles it is one transaction."""

    def __init__(self, place: Place, key: int, request: Request, attempt: int) -> None:
        self.request = request
        self.attempt = attempt
        self.revoked: Deferred[str] = Deferred()
        self.lease_end = place.lease_end()
        self._place = place
        self._key = key
        self._over: str | None = None

    def extend(self) -> None:
        self.lease_end = self._place.lease_end()

    def progress(self, detail: dict[str, Any]) -> Deferred[None]:
        place, key = self._place, self._key
        if not place.recorded:
            return Deferred.fromCoroutine(_nothing())
        detail = {**detail, "attempt": self.attempt}
        return place.file.write(lambda connection: place.ledger.note_event(connection, key, "progress", detail))

    def ack(self) -> Deferred[None]:
        return self._finish(lambda connection: None)

    def retry(self, delay: float, reason: str) -> Deferred[None]:
        place, key = self._place, self._key
        due = place.clock.seconds() + delay
        detail = {"attempt": self.attempt, "next_attempt_at": due, "error": reason}

        def hold(connection: apsw.Connection) -> None:
            if place.recorded and not place.ledger.has_ended(connection, key):
                place.ledger.note_event(connection, key, "retrying", detail)
            place.lanes.put_back(connection, key, due, counted=True)
            place.file.after_commit(lambda: place.wake_at(due))

        return self._settle(hold)

    def release(self) -> Deferred[None]:
        place, key = self._place, self._key

        def put_back(connection: apsw.Connection) -> None:
            place.lanes.put_back(connection, key, place.clock.seconds(), counted=False)
            place.file.after_commit(place.wake)

        return self._settle(put_back)

    def settle(self, reply: Reply) -> Deferred[bool]:
        place, key = self._place, self._key
        return self._finish(
            lambda connection: place.ledger.note_ending(connection, key, reply) if place.recorded else True
        )

    def dead_letter(self, reason: str, reply: Reply) -> Deferred[bool]:
        place, key = self._place, self._key
        letter = DeadLetter(self.request, reason, reply, place.clock.seconds())

        def bury(connection: apsw.Connection) -> bool:
            first = place.ledger.note_ending(connection, key, reply) if place.recorded else True
            if first:
                place.bury(connection, letter)
            return first

        return self._finish(bury)

    def _finish(self, step: Callable[[apsw.Connection], Any]) -> Deferred[Any]:
        def finish(connection: apsw.Connection) -> Any:
            result = step(connection)
            self._place.lanes.finish(connection, self._key)
            return result

        return self._settle(finish)

    @deferred
    async def _settle(self, step: Callable[[apsw.Connection], Any]) -> Any:
        if self._over is not None:
            raise DeliveryClosed(self.request.correlation_id, self._over)
        self._over = "it was settled before"
        try:
            result = await self._place.file.write(step)
        except Exception:
            self._over = None  # nothing of it is in the file, whatever it was: the loan goes on
            raise
        self._place.forget(self._key)
        return result

    def revoke(self, reason: str) -> None:
        """The work is in vain; settling is still allowed, and takes the message away."""
        if not self.revoked.called and self._over is None:
            self.revoked.callback(reason)

    def lose(self) -> bool:
        """The lease ran out: lend it anew, and let nothing more be settled on this loan. False: it is being settled."""
        if self._over is not None:
            return False
        place, key = self._place, self._key
        self._over = "its lease was lost"
        place.forget(key)

        def lend_anew(connection: apsw.Connection) -> None:
            place.lanes.put_back(connection, key, place.clock.seconds(), counted=True)
            place.file.after_commit(place.wake)

        place.file.write(lend_anew).addErrback(self._still_out)
        if not self.revoked.called:
            self.revoked.callback("lease lost")
        return True

    def _still_out(self, failure: Failure) -> None:
        """The disk would not take it: the loan stays in the books until it can be ended."""
        failure.trap(NotDurable)
        self._place.clock.callLater(RETRY_SECONDS, self._lose_again)

    def _lose_again(self) -> None:
        self._over = None
        self.lose()


async def _nothing() -> None:
    return None
