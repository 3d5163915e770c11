# -*- test-case-name: tests.brokered.test_brokered -*-
"""One channel that a process consumes from: its subscription, its credit, its leases, and its acknowledgements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.brokered.acks import AckTracker
from openhqm.errors import NotDurable
from openhqm.interfaces import IBroker, IBrokerDelivery, IReceiver, ISubscription, Message
from openhqm.runtime.deferreds import deferred

AGAIN_SECONDS = 1.0
WARNING_SECONDS = 15.0
"""How long a warning stands. A channel is tried again more often than that; that it is there is not said."""
MOST_BEHIND = 5000
"""How many deliveries may wait for an earlier one before the broker is told of them: then no more are allowed."""


class Recovery(Protocol):
    """What makes good what a broker has lost: `openhqm.brokered.losses.Losses`."""

    def restore(self, channel: str) -> Deferred[None]:
        """Make a channel that is missing, and make good what was lost with it. `NotDurable`."""

    def dropped(self, channel: str) -> None:
        """The broker has removed messages of the channel that were not delivered: they are made good."""


@implementer(IReceiver)
class Source:
    """``receive`` is called with each delivery. ``losses`` makes the channel where it is missing, and ``ready`` is
    called when it can be consumed from again.

    ``allowed`` is how many deliveries may be out, besides those that are done with and wait for an earlier one.
    ``waiting`` is how many were received and not begun, ``arrived`` how many have come since the subscription was made.
    """

    _log = Logger()

    def __init__(
        self,
        broker: IBroker,
        clock: IReactorTime,
        channel: str,
        receive: Callable[[IBrokerDelivery, Source], None],
        losses: Recovery,
        ready: Callable[[], None],
    ) -> None:
        self.channel = channel
        self.allowed = 0
        self.waiting = 0
        self.arrived = 0
        self._broker = broker
        self._clock = clock
        self._receive = receive
        self._losses = losses
        self._ready = ready
        self._subscription: ISubscription | None = None
        self._missing = False
        self._pause: Any = None
        self._restoring: Deferred[Any] | None = None
        self._out: dict[IBrokerDelivery, float] = {}
        self._tracker = AckTracker(broker.traits.acks, self._acknowledge)
        self._extending: Any = None
        self._credit = 0
        self._quiet_from = clock.seconds()
        self._unheard = self._closed = False
        self._warning: str | None = None
        self._warned_at = 0.0

    @property
    def warning(self) -> str | None:
        """Why the channel cannot be consumed from, or None."""
        return self._warning if self._clock.seconds() < self._warned_at + WARNING_SECONDS else None

    @property
    def active(self) -> bool:
        """Whether deliveries may come."""
        return self._subscription is not None

    @property
    def requeues(self) -> bool:
        """Whether a delivery can be handed back to the broker."""
        return self._broker.traits.requeues

    @property
    def in_hand(self) -> int:
        """How many deliveries are being worked on."""
        return len(self._out) - self.waiting

    @property
    def quiet_seconds(self) -> float:
        """For how long deliveries might have come, and nothing came and nothing was out."""
        return 0.0 if self._out or not self.active or not self.allowed else self._clock.seconds() - self._quiet_from

    # Consuming

    def allow(self, most: int) -> None:
        """Let up to ``most`` deliveries be out. Somewhat less is not worth a word to the broker; much less is."""
        if not self.allowed:
            self._quiet_from = self._clock.seconds()
        if self._subscription is not None:
            if most > self.allowed or 2 * most < self.allowed:
                self.allowed = most
                self._tell_credit()
        elif self._pause is None and self._restoring is None and not self._closed:
            self.allowed, self.arrived, self._credit, self._missing = most, 0, 0, False
            subscription = self._broker.consume(self.channel, self)
            if not self._missing:  # else it was told so at once
                self._subscription = subscription
                self._tell_credit()

    def _tell_credit(self) -> None:
        """For the product those are out, too, that wait for an earlier one: they do not take up what is allowed."""
        credit = self.allowed + min(self._tracker.behind, MOST_BEHIND) if self.allowed else 0
        if self._subscription is not None and credit != self._credit:
            self._credit = credit
            self._subscription.credit(credit)

    def pause(self) -> None:
        """Let nothing more come, and stay subscribed: where consumers share partitions, leaving moves them."""
        self.allowed = 0
        self._tell_credit()

    def stop(self) -> Deferred[None]:
        """Consume no more, until more is allowed. What was received stays out. It does not fail."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._restoring is not None:
            self._restoring.cancel()
        subscription, self._subscription, self.allowed = self._subscription, None, 0
        return succeed(None) if subscription is None else subscription.stop()

    def close(self) -> None:
        """Consume no more for ever, and extend no more leases: what is out is delivered again."""
        self._closed = True
        if self._extending is not None:
            self._extending.cancel()
            self._extending = None

    def received(self, delivery: IBrokerDelivery) -> None:
        """See `IReceiver.received`."""
        self.arrived += 1
        self._warning = None
        self._out[delivery] = self._clock.seconds()
        self._tracker.arrived(delivery)
        delivery.revoked.addCallback(self._revoked, delivery)
        lease = self._broker.traits.lease_seconds
        if lease is not None and self._extending is None and not self._closed:
            self._extending = self._clock.callLater(lease / 3, self._extend, lease)
        self._receive(delivery, self)

    def lost(self, reason: str) -> None:
        """See `IReceiver.lost`."""
        self._missing = True
        self._subscription, self.allowed = None, 0
        if self._closed:
            return
        if self.warning is None:
            self._log.info("{channel} cannot be consumed from: {reason}", channel=self.channel, reason=reason)
        self._restoring = self._losses.restore(self.channel)
        self._restoring.addCallbacks(self._restored, self._not_restored)

    def dropped(self, count: int) -> None:
        """See `IReceiver.dropped`."""
        self._losses.dropped(self.channel)

    def _restored(self, result: None) -> None:
        self._restoring = self._warning = None
        self._ready()

    def _not_restored(self, failure: Failure) -> None:
        self._restoring = None
        if failure.check(CancelledError):
            return
        failure.trap(NotDurable)
        warning = f"{self.channel} cannot be consumed from: {failure.getErrorMessage()}"
        if warning != self.warning:
            self._log.warn("{text}", text=warning)
        self._warning, self._warned_at = warning, self._clock.seconds()
        if not self._closed:
            self._pause = self._clock.callLater(AGAIN_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._pause = None
        self._ready()

    # What is out

    def done(self, delivery: IBrokerDelivery) -> None:
        """Nothing is left to do for it: the broker is told as soon as the product allows."""
        if self._take_out(delivery):
            self._tracker.done(delivery)
            self._tell_credit()

    def requeue(self, delivery: IBrokerDelivery) -> None:
        """The broker is to deliver it again at once, to this process or another one."""
        if self._take_out(delivery):
            self._tracker.revoked(delivery)
            delivery.requeue().addCallbacks(self._heard, self._not_heard)

    @deferred
    async def republish(self, delivery: IBrokerDelivery, message: Message) -> None:
        """Put ``message`` into the channel, behind the others, and have done with the delivery. It does not fail.

        The broker counts no redelivery. Where it does not take the message, the delivery is requeued, which it counts;
        or it stays out, where the product cannot do that, until the connection ends.
        """
        if self.is_out(delivery):
            (outcome,) = await self._broker.publish(self.channel, [message])
            if outcome is None:
                self.done(delivery)
            elif self.requeues:
                self.requeue(delivery)

    def is_out(self, delivery: IBrokerDelivery) -> bool:
        """Whether it is still this process's."""
        return delivery in self._out

    def _acknowledge(self, delivery: IBrokerDelivery) -> None:
        self._tell_credit()  # or as many more would come as were waiting for this
        delivery.ack().addCallbacks(self._heard, self._not_heard)

    def _heard(self, result: None) -> None:
        self._unheard = False

    def _not_heard(self, failure: Failure) -> None:
        """The message is delivered again, whatever was said of it; the ledger knows what to do with it then."""
        failure.trap(NotDurable)
        if not self._unheard:
            self._unheard = True
            reason = failure.getErrorMessage()
            self._log.warn("{channel}: the broker was not told: {reason}", channel=self.channel, reason=reason)

    def _revoked(self, reason: str, delivery: IBrokerDelivery) -> str:
        self._take_out(delivery)
        self._tracker.revoked(delivery)
        self._tell_credit()
        return reason

    def _take_out(self, delivery: IBrokerDelivery) -> bool:
        self._quiet_from = self._clock.seconds()
        return self._out.pop(delivery, None) is not None

    def _extend(self, lease: float) -> None:
        """Renew the leases of all that is out; those that the product does not let us keep any longer run out."""
        self._extending = None
        longest, now = self._broker.traits.longest_lease_seconds, self._clock.seconds()
        for delivery, since in list(self._out.items()):
            if longest is None or now - since + lease <= longest:
                delivery.extend(lease).addErrback(_is_delivered_again)
        if self._out:
            self._extending = self._clock.callLater(lease / 3, self._extend, lease)


def _is_delivered_again(failure: Failure) -> None:
    """The lease could not be renewed: the broker revokes the delivery, or another look renews it."""
    failure.trap(NotDurable)
