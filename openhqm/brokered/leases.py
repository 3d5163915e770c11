# -*- test-case-name: tests.brokered.test_foreign -*-
"""Leases of deliveries that wait for something longer: each is extended at a third, until it is settled."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.interfaces import BrokerTraits, IBrokerDelivery


class Leases:
    """Those of the deliveries of one broker with ``traits``, whose lease has seconds."""

    def __init__(self, traits: BrokerTraits, clock: IReactorTime) -> None:
        assert traits.lease_seconds is not None, "there are leases"
        self._lease = traits.lease_seconds
        self._longest = traits.longest_lease_seconds
        self._clock = clock
        self._out: dict[IBrokerDelivery, float] = {}
        self._timer: Any = None

    def keep(self, delivery: IBrokerDelivery) -> None:
        """Extend it until it is dropped or revoked, or for as long as the product allows."""
        self._out[delivery] = self._clock.seconds()
        delivery.revoked.addCallback(self._revoked, delivery)
        if self._timer is None:
            self._timer = self._clock.callLater(self._lease / 3, self._extend)

    def drop(self, delivery: IBrokerDelivery) -> None:
        """It is settled: its lease may end."""
        self._out.pop(delivery, None)

    def stop(self) -> None:
        """Extend no more."""
        self._out.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _revoked(self, reason: str, delivery: IBrokerDelivery) -> str:
        self.drop(delivery)
        return reason

    def _extend(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        for delivery, since in list(self._out.items()):
            if self._longest is None or now - since + self._lease <= self._longest:
                delivery.extend(self._lease).addErrback(_is_delivered_again)
        if self._out:
            self._timer = self._clock.callLater(self._lease / 3, self._extend)


def _is_delivered_again(failure: Failure) -> None:
    """The lease could not be extended: the broker revokes the delivery, or the next look extends it."""
    failure.trap(NotDurable)
