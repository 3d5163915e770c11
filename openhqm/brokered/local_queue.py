# -*- test-case-name: tests.brokered.test_brokered -*-
"""One queue of a broker as this process sees it: what becomes of each copy, and which loans are out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.brokered.delivery import BrokeredDelivery, Delivery, PlainDelivery
from openhqm.brokered.ledger import Ledger
from openhqm.brokered.parked import Held
from openhqm.brokered.publishing import Publishing
from openhqm.brokered.receivers import RETRY_SECONDS, Asking
from openhqm.brokered.rejects import foreign, unreadable
from openhqm.codec import decode_request
from openhqm.errors import NotDurable, OpenHQMError, UnreadableMessage
from openhqm.interfaces import IDelivery
from openhqm.interfaces.legacy import IBroker, IBrokerDelivery
from openhqm.messages import DeadLetter, Request
from openhqm.policy.copies import Copy, Loan
from openhqm.runtime.deferreds import deferred


class Place:
    """``recorded``: the messages are requests, which the ledger knows."""

    _log = Logger()

    def __init__(
        self,
        broker: IBroker,
        ledger: Ledger,
        publishing: Publishing,
        clock: IReactorTime,
        name: str,
        recorded: bool,
        lease: float,
    ) -> None:
        self.ledger = ledger
        self.clock = clock
        self.lease = lease
        self._broker = broker
        self._publishing = publishing
        self._name = name
        self._recorded = recorded
        self._held = Held(clock, self._due)
        self._asking = Asking(broker, clock, name, self._begin, self._held.take, self.put_back)
        self._loans: set[Delivery] = set()
        self._by_number: dict[int, BrokeredDelivery] = {}
        self._beginning: dict[int, IBrokerDelivery] = {}
        self._meanwhile: dict[int, str] = {}
        self._apart: set[Any] = set()
        self._lease_check: Any = None
        self._unheard = self._stopped = False
        if recorded:
            ledger.follow(name, self._look)

    def receive(self, most: int, in_order: bool) -> Deferred[Sequence[IDelivery]]:
        """See `IMessageQueue.receive`."""
        return self._asking.receive(most, in_order)

    def stop(self) -> Deferred[Any]:
        """Lend nothing more. What is on loan, or held, goes back with the broker's connection.

        Fires once nothing is being begun any more.
        """
        self._stopped = True
        begun = self._asking.stop()
        self._held.stop()
        for call in (self._lease_check, *self._apart):
            if call is not None and call.active():
                call.cancel()
        return begun

    # Beginning

    @deferred
    async def _begin(self, copy: IBrokerDelivery, in_order: bool) -> IDelivery | None:
        """None: there is nothing to make of it, or it went back. `NotDurable`: it is still here, and is to be kept."""
        try:
            delivery = await self._delivery(copy, in_order)
        except Exception as error:
            if not isinstance(error, NotDurable):  # a bug of ours: say so, and let it come again
                self._log.failure("a message of {queue} broke its reading", queue=self._name)
            elif self.ledger.counts_returns:
                raise
            self._asking.pause()
            self.put_back(copy)
            return None
        if delivery is None:
            return None
        self._loans.add(delivery)
        if isinstance(delivery, BrokeredDelivery):
            self._by_number[delivery.loan.number] = delivery
        if self._lease_check is None and not self._stopped:
            self._lease_check = self.clock.callLater(self.lease, self._check_leases)

        def taken_back(reason: str) -> str:
            delivery.lose()
            return reason

        copy.taken_back.addCallback(taken_back)  # maybe at once: while the books were written
        return delivery

    async def _delivery(self, copy: IBrokerDelivery, in_order: bool) -> BrokeredDelivery | PlainDelivery | None:
        """None: it was dealt with otherwise. `NotDurable`."""
        try:
            request = decode_request(copy.body)
        except UnreadableMessage as error:
            await self._bury(copy, unreadable(copy.body, error.reason, self.clock.seconds()))
            return None
        if not self._recorded:
            return PlainDelivery(self, copy, request, copy.attempts + copy.returned + 1)
        number = self.ledger.number(request.correlation_id)
        if number is None:
            await self._bury(copy, foreign(request, self.clock.seconds()))
            return None
        if self._is_here(number, copy.attempts):
            self._pass_over(copy, request)
            return None
        self._beginning[number] = copy
        try:
            begun = await self.ledger.begin(Copy(number, request, copy.body, copy.attempts), copy.returned)
        finally:
            if self._beginning.get(number) is copy:
                del self._beginning[number]
            status = self._meanwhile.pop(number, None)
        if isinstance(begun, Loan):
            delivery = BrokeredDelivery(self, copy, request, begun, in_order)
            if status is not None:
                delivery.revoke(status)
            return delivery
        if begun is None:
            self._pass_over(copy, request)
        elif begun.retry and in_order:
            self.hold(copy, number, begun.delay)
        else:  # the broker cannot keep it for so long: once more
            await self._publishing.publish(Copy(number, request, copy.body, copy.attempts, begun.delay))
            self.drop(copy)
        return None

    def _is_here(self, number: int, attempts: int) -> bool:
        """Whether a copy that is worth as much is in work here already: then this one is one too many.

        One that the broker has taken back is not: this may be the same message.
        """
        loan = self._by_number.get(number)
        here = (loan and loan.copy, self._beginning.get(number), self._held.get(number))
        return any(copy and not copy.taken_back.called and attempts <= copy.attempts for copy in here)

    async def _bury(self, copy: IBrokerDelivery, letter: DeadLetter) -> None:
        await self.ledger.bury(letter)
        words = "a message of {queue} is a dead letter: {reason}"
        self._log.warn(words, queue=self._name, reason=letter.reason, id=letter.request.correlation_id)
        self.drop(copy)

    def _pass_over(self, copy: IBrokerDelivery, request: Request) -> None:
        words = "a copy of {id} is worth nothing any more"
        self._log.debug(words, id=request.correlation_id, queue=self._name, attempts=copy.attempts)
        self.drop(copy)

    # What deliveries ask for

    def forget(self, delivery: Delivery) -> None:
        """The loan is over."""
        self._loans.discard(delivery)
        if isinstance(delivery, BrokeredDelivery) and self._by_number.get(delivery.loan.number) is delivery:
            del self._by_number[delivery.loan.number]

    def drop(self, copy: IBrokerDelivery) -> None:
        """Tell the broker that the copy is done with, and wait for nothing."""
        copy.ack().addCallbacks(self._heard, self._not_heard)

    def put_back(self, copy: IBrokerDelivery) -> None:
        """Tell the broker to lend the copy again, and wait for nothing."""
        copy.release().addCallbacks(self._heard, self._not_heard)

    def _heard(self, result: None) -> None:
        self._unheard = False

    def _not_heard(self, failure: Failure) -> None:
        """The copy comes again, whatever was said of it; the books know what to do with it then."""
        failure.trap(NotDurable)
        if not self._unheard:
            self._unheard = True
            self._log.warn("{queue}: the broker was not told: {reason}", queue=self._name, reason=str(failure.value))

    def keep_apart(self, copy: IBrokerDelivery) -> None:
        """Put the copy back after a lease: a later attempt is under way elsewhere, and may need it if it fails."""

        def ring() -> None:
            self._apart.remove(call)
            self.put_back(copy)

        call = self.clock.callLater(self.lease, ring)
        self._apart.add(call)

    def hold(self, copy: IBrokerDelivery, number: int, delay: float) -> None:
        """Keep the copy, and lend it again here after ``delay`` seconds."""
        if not copy.taken_back.called:
            self._held.add(number, copy, delay)
            self._ask_after(number).addErrback(_ask_later)  # it may have ended in the same moment

    def _due(self) -> None:
        self._asking.nudge()

    def publish_anew(self, copy: Copy) -> Deferred[None]:
        """Publish a marked copy; it does not fail."""
        return self._publishing.publish_or_leave(copy)

    @deferred
    async def replace(self, copy: IBrokerDelivery, new: Copy) -> None:
        """Publish ``new`` in place of ``copy``, which goes back where that fails."""
        try:
            await self._publishing.publish(new)
        except NotDurable:
            self.put_back(copy)
        else:
            self.drop(copy)

    def publish_plain(self, copy: IBrokerDelivery, request: Request, attempts: int, delay: float) -> Deferred[None]:
        """Publish what no ledger knows of once more; `NotDurable`."""
        priority = request.submission.priority
        return self._broker.publish(self._name, copy.body, attempts=attempts, priority=priority, delay=delay)

    # Endings and leases

    def ended(self, number: int, status: str) -> None:
        """The request has ended; whoever works on it may stop, and what waits behind it may go."""
        if number in self._beginning:
            self._meanwhile[number] = status
        loan = self._by_number.get(number)
        if loan is not None:
            loan.revoke(status)
        held = self._held.remove(number)
        if held is not None:
            self.drop(held)

    def _look(self) -> None:
        """Ask after everything here: an ending may have been missed."""
        for number in [*self._by_number, *self._held]:
            self._ask_after(number).addErrback(_ask_later)

    @deferred
    async def _ask_after(self, number: int) -> None:
        status = await self.ledger.ending(number)
        if status is not None:
            self.ended(number, status)

    def _check_leases(self) -> None:
        self._lease_check = None
        now = self.clock.seconds()
        for loan in [loan for loan in self._loans if loan.lease_end <= now]:
            if loan.lose():
                self._log.warn("the lease on {id} was lost", id=loan.request.correlation_id, attempt=loan.attempt)
                self.put_back(loan.copy)
        if self._loans:
            soonest = min(loan.lease_end for loan in self._loans)
            # Never at once: a loan that is being settled just now stays in the books until that is done.
            self._lease_check = self.clock.callLater(max(RETRY_SECONDS, soonest - now), self._check_leases)


def _ask_later(failure: Failure) -> None:
    """The store cannot be asked now, or does not know the request any more: its next step will tell."""
    failure.trap(OpenHQMError)
