# -*- test-case-name: tests.testing.test_directory_broker,tests.testing.test_pulled -*-
"""A subscription to a channel that has to be asked for its messages, and the leases of what it was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces import ChannelMissing, IBrokerDelivery, IReceiver, ISubscription, Message
from openhqm.pulled.product import Taken

Ask = Callable[..., Deferred[Any]]
"""Calls a function of the product and fires with what it returns, or fails with `NotDurable`."""
LONGEST_PAUSE = 5.0
"""Seconds until a channel is asked again after one failure and another."""


@implementer(IBrokerDelivery)
class PulledDelivery:
    """A message on a lease that ends at ``lease_end``, by our clock."""

    position = None

    def __init__(self, taken: Taken, subscription: PulledSubscription, lease_end: float) -> None:
        self.message: Message = taken.message
        self.redelivery_count = taken.redelivery_count
        self.revoked: Deferred[str] = Deferred()
        self.lease_end = lease_end
        self.id = taken.id
        self._receipt = taken.receipt
        self._subscription = subscription

    def ack(self) -> Deferred[None]:
        return self._settle("ack")

    def requeue(self) -> Deferred[None]:
        return self._settle("requeue")

    def extend(self, seconds: float) -> Deferred[None]:
        if self.revoked.called:
            return fail(NotDurable("the lease is over"))
        end = self._subscription.now() + seconds
        return self._subscription.ask("extend", self._receipt, seconds).addCallback(self._extended, end)

    def _extended(self, receipt: Any, end: float) -> None:
        self._receipt = receipt
        self.lease_end = end
        self._subscription.watch()

    def _settle(self, function: str) -> Deferred[None]:
        if self.revoked.called:
            return fail(NotDurable("the lease is over"))
        settled = self._subscription.ask(function, self._receipt)
        return settled.addCallback(lambda _: self._subscription.settled(self))


@implementer(ISubscription)
class PulledSubscription:
    """``ask`` calls the product. A channel that had nothing is asked again after ``idle_seconds``.

    ``waits``: the product keeps the question until there is a message, so that a lease counts from its arrival.
    """

    _log = Logger()

    def __init__(
        self,
        channel: str,
        receiver: IReceiver,
        clock: IReactorTime,
        ask: Ask,
        lease: float,
        idle_seconds: float,
        waits: bool = False,
    ) -> None:
        self.ask = ask
        self.channel = channel
        self._receiver = receiver
        self._clock = clock
        self._lease = lease
        self._idle_seconds = idle_seconds
        self._most = 0
        self._waits = waits
        self._pause = idle_seconds
        self._out: dict[PulledDelivery, None] = {}
        self._ids: dict[str, PulledDelivery] = {}
        self._taking: Deferred[Any] | None = None
        self._over = self._connected = False
        self._again: Any = None
        self._expiry: Any = None

    @property
    def asks(self) -> bool:
        """Whether a question is on its way, or waits for a message at the product."""
        return self._taking is not None

    def now(self) -> float:
        """The time, by our clock."""
        return self._clock.seconds()

    def credit(self, most: int) -> None:
        self._most = most
        self._later(0.0)  # what is said in one turn of the reactor is one question

    def stop(self) -> Deferred[None]:
        self._over = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._waits:
            self._take_no_more()  # or what comes much later would be received once more, and go back
        return succeed(None)

    def connected(self, yes: bool) -> None:
        """Whether the product can be asked now."""
        if yes and not self._connected:
            self._pause = self._idle_seconds
        self._connected = yes
        if yes:
            self._take()
        else:
            self._take_no_more()

    def close(self, reason: str) -> None:
        """The client is stopped: what is out is delivered again when its lease ends."""
        self.stop()
        self._take_no_more()
        self.revoke_all(reason)

    def revoke_all(self, reason: str) -> None:
        """Every lease has ended."""
        self._revoke(list(self._out), reason)

    def settled(self, delivery: PulledDelivery) -> None:
        """The delivery is not out any more."""
        self._forget(delivery)
        self._take()

    def _forget(self, delivery: PulledDelivery) -> None:
        self._out.pop(delivery, None)
        if delivery.id is not None and self._ids.get(delivery.id) is delivery:
            del self._ids[delivery.id]

    def _take_no_more(self) -> None:
        """Give up the question that the product has not answered."""
        if self._taking is not None:
            self._taking.cancel()

    def _take(self) -> None:
        most = self._most - len(self._out)
        if most <= 0 or self._taking is not None or self._over or not self._connected or self._again is not None:
            return
        self._taking = Deferred()  # a product that answers at once has answered before there is a name for the question
        asked = self.now()
        taking = self.ask("take", self.channel, most)
        if not taking.called:
            self._taking = taking
        taking.addCallbacks(self._took, self._not_taken, (asked,))

    def _took(self, found: Sequence[Taken], asked: float) -> None:
        self._taking = None
        self._pause = self._idle_seconds
        # Before it was asked, where it answers at once: the product's own lease ends later.
        lease_end = self._lease + (self.now() if self._waits else asked)
        for taken in found:
            if self._over:
                self.ask("requeue", taken.receipt).addErrback(_comes_again)
                continue
            delivery = PulledDelivery(taken, self, lease_end)
            if taken.id is not None:
                if (older := self._ids.get(taken.id)) is not None:
                    self._revoke([older], "the message was delivered again")
                self._ids[taken.id] = delivery
            self._out[delivery] = None
            try:
                self._receiver.received(delivery)
            except Exception:  # the others, and what comes later, are received all the same
                self._log.failure("a message from {channel} cannot be received", channel=self.channel, id=taken.id)
        self.watch()
        self._later(0.0 if found else self._idle_seconds)

    def _not_taken(self, failure: Failure) -> None:
        self._taking = None
        failure.trap(NotDurable)
        if failure.check(ChannelMissing) and not self._over:
            self._over = True
            self._revoke(list(self._out), "the channel is gone")
            self._receiver.lost(failure.getErrorMessage())
        else:
            self._later(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _later(self, seconds: float) -> None:
        if not self._over and self._again is None:
            self._again = self._clock.callLater(seconds, self._ask_again)

    def _ask_again(self) -> None:
        self._again = None
        self._take()

    def watch(self) -> None:
        """Look again when the first of the leases ends."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._out:
            soonest = min(delivery.lease_end for delivery in self._out)
            self._expiry = self._clock.callLater(max(0.01, soonest - self.now()), self._expire)

    def _expire(self) -> None:
        self._expiry = None
        now = self.now()
        self._revoke([each for each in self._out if each.lease_end <= now], "the lease ran out")
        self.watch()
        self._take()

    def _revoke(self, deliveries: Sequence[PulledDelivery], reason: str) -> None:
        for delivery in deliveries:
            self._forget(delivery)
            delivery.revoked.callback(reason)
        if not self._out and self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None


def _comes_again(failure: Failure) -> None:
    """Its lease ends by itself."""
    failure.trap(NotDurable)
