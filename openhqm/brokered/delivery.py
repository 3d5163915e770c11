# -*- test-case-name: tests.brokered.test_brokered -*-
"""A request on loan whose message lies with a broker, and whose books are kept elsewhere.

The ledger's step comes first, and decides. What the broker is told after it may get lost: then the copy comes once
more, and the ledger knows that it is worth nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from openhqm.brokered.ledger import Ledger
from openhqm.errors import DeliveryClosed
from openhqm.interfaces import IDelivery
from openhqm.interfaces.legacy import IBrokerDelivery
from openhqm.messages import DeadLetter, Reply, Request
from openhqm.policy.copies import Copy, Loan
from openhqm.runtime.deferreds import deferred

LOST = "its lease was lost"
SETTLED = "it was settled before"


class Lender(Protocol):
    """What a delivery needs of the queue that lent it."""

    clock: IReactorTime
    ledger: Ledger
    lease: float

    def forget(self, delivery: Delivery) -> None:
        """The loan is over."""

    def drop(self, copy: IBrokerDelivery) -> None:
        """Tell the broker that the copy is done with, and wait for nothing."""

    def put_back(self, copy: IBrokerDelivery) -> None:
        """Tell the broker to lend the copy again, and wait for nothing."""

    def keep_apart(self, copy: IBrokerDelivery) -> None:
        """Put the copy back after a lease: somebody else works on its request."""

    def hold(self, copy: IBrokerDelivery, number: int, delay: float) -> None:
        """Keep the copy, and lend it again here after ``delay`` seconds."""

    def publish_anew(self, copy: Copy) -> Deferred[None]:
        """Publish a marked copy. It does not fail: where it could not be published, the mark is left for later."""

    def replace(self, copy: IBrokerDelivery, new: Copy) -> Deferred[None]:
        """Publish ``new`` in place of ``copy``, which goes back where that fails. It does not fail."""

    def publish_plain(self, copy: IBrokerDelivery, request: Request, attempts: int, delay: float) -> Deferred[None]:
        """Publish what no ledger knows of once more; `NotDurable`."""


class Delivery:
    """What ends a loan, once."""

    def __init__(self, place: Lender, copy: IBrokerDelivery, request: Request, attempt: int) -> None:
        self.request = request
        self.attempt = attempt
        self.copy = copy
        self.revoked: Deferred[str] = Deferred()
        self.lease_end = place.clock.seconds() + place.lease
        self._place = place
        self._over: str | None = None

    def extend(self) -> None:
        """See `IDelivery.extend`."""
        self.lease_end = self._place.clock.seconds() + self._place.lease

    @deferred
    async def _settle(self, step: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        if self._over is not None:
            raise DeliveryClosed(self.request.correlation_id, self._over)
        self._over = SETTLED
        try:
            return await step()
        except DeliveryClosed:
            self._over = LOST
            self._place.forget(self)
            self._place.keep_apart(self.copy)
            raise
        except Exception:
            self._over = None  # nothing of it is in the books: the loan goes on, unless it is over anyway
            if self.copy.taken_back.called:
                self.lose()
            raise

    def revoke(self, reason: str) -> None:
        """The work is in vain; settling is still allowed, and takes the message away."""
        if not self.revoked.called and self._over is None:
            self.revoked.callback(reason)

    def lose(self) -> bool:
        """Somebody else may have it from now on. False: it is being settled, and the ledger decides."""
        if self._over is not None:
            return False
        self._over = LOST
        self._place.forget(self)
        if not self.revoked.called:
            self.revoked.callback("lease lost")
        return True


@implementer(IDelivery)
class BrokeredDelivery(Delivery):
    """A request in the books. ``in_order``: a retry keeps its place, so its copy is held here until it is due."""

    def __init__(self, place: Lender, copy: IBrokerDelivery, request: Request, loan: Loan, in_order: bool) -> None:
        super().__init__(place, copy, request, loan.attempt)
        self.loan = loan
        self._in_order = in_order

    def progress(self, detail: dict[str, Any]) -> Deferred[None]:
        return self._place.ledger.note_progress(self.loan, {**detail, "attempt": self.attempt})

    def ack(self) -> Deferred[None]:
        return self._settle(self._let_go)

    def retry(self, delay: float, reason: str) -> Deferred[None]:
        return self._settle(lambda: self._hold(delay, reason) if self._in_order else self._renew(delay, reason))

    def release(self) -> Deferred[None]:
        return self._settle(self._release)

    def settle(self, reply: Reply) -> Deferred[bool]:
        return self._settle(lambda: self._end(reply, None))

    def dead_letter(self, reason: str, reply: Reply) -> Deferred[bool]:
        letter = DeadLetter(self.request, reason, reply, self._place.clock.seconds())
        return self._settle(lambda: self._end(reply, letter))

    async def _let_go(self) -> None:
        await self._place.ledger.let_go(self.loan)
        self._place.forget(self)
        self._place.drop(self.copy)

    async def _end(self, reply: Reply, letter: DeadLetter | None) -> bool:
        first = await self._place.ledger.end(self.loan, reply, letter)
        self._place.forget(self)
        self._place.drop(self.copy)
        return first

    async def _release(self) -> None:
        instead = await self._place.ledger.release(self.loan)
        self._place.forget(self)  # before another copy can come
        if instead is None:
            self._place.put_back(self.copy)
        else:
            await self._place.replace(self.copy, instead)

    async def _hold(self, delay: float, reason: str) -> None:
        held = await self._place.ledger.hold(self.loan, delay, reason)
        self._place.forget(self)
        if held:
            self._place.hold(self.copy, self.loan.number, delay)
        else:
            self._place.drop(self.copy)

    async def _renew(self, delay: float, reason: str) -> None:
        renewed = await self._place.ledger.renew(self.loan, self.request, self.copy.body, delay, reason)
        self._place.forget(self)  # before the new copy can come
        if renewed is not None:
            await self._place.publish_anew(renewed)
        self._place.drop(self.copy)


@implementer(IDelivery)
class PlainDelivery(Delivery):
    """A message that no store knows of: it has what the broker promises, and no more."""

    def progress(self, detail: dict[str, Any]) -> Deferred[None]:
        return succeed(None)

    def ack(self) -> Deferred[None]:
        return self._settle(self._ack)

    def retry(self, delay: float, reason: str) -> Deferred[None]:
        return self._settle(lambda: self._again(delay))

    def release(self) -> Deferred[None]:
        return self._settle(self._release)

    def settle(self, reply: Reply) -> Deferred[bool]:
        return self._settle(self._ack).addCallback(lambda _: True)

    def dead_letter(self, reason: str, reply: Reply) -> Deferred[bool]:
        letter = DeadLetter(self.request, reason, reply, self._place.clock.seconds())
        return self._settle(lambda: self._bury(letter))

    async def _ack(self) -> None:
        await self.copy.ack()
        self._place.forget(self)

    async def _again(self, delay: float) -> None:
        await self._place.publish_plain(self.copy, self.request, self.attempt, delay)
        self._place.forget(self)
        self._place.drop(self.copy)

    async def _release(self) -> None:
        await self.copy.release()
        self._place.forget(self)

    async def _bury(self, letter: DeadLetter) -> bool:
        await self._place.ledger.bury(letter)
        self._place.forget(self)
        self._place.drop(self.copy)
        return True
