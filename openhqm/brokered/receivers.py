# -*- test-case-name: tests.brokered.test_brokered -*-
"""Who waits for work from one queue of a broker. Each asks the broker by itself; who gives up loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from openhqm.errors import DeliveryClosed, NotDurable
from openhqm.interfaces import IDelivery
from openhqm.interfaces.legacy import IBroker, IBrokerDelivery
from openhqm.runtime.deferreds import deferred

RETRY_SECONDS = 1.0


@attrs.define(eq=False)
class _Asker:
    """Somebody in `receive`. ``pending`` is what is waited for, where that may be cancelled.

    ``kept`` could not be begun yet, and is begun again before anything else is asked for.
    """

    most: int
    in_order: bool
    waiter: Deferred[Sequence[IDelivery]] = attrs.field(init=False)
    pending: Deferred[Any] | None = None
    kept: list[IBrokerDelivery] = attrs.field(factory=list, init=False)
    gone: bool = False
    nudged: bool = False
    served: Deferred[None] | None = None

    def __attrs_post_init__(self) -> None:
        self.waiter = Deferred(lambda waiter: self.leave())

    def leave(self) -> None:
        """Wait no more."""
        self.gone = True
        if self.pending is not None:
            self.pending.cancel()

    def nudge(self) -> None:
        """Look anew."""
        if self.pending is not None:
            self.nudged = True
            self.pending.cancel()


class Asking:
    """``begin`` makes a delivery of a copy, or None where there is none to make; `NotDurable`: it is to be kept, and
    begun again. ``put_back`` is for what was kept for somebody who needs it no more.

    ``take_held`` is asked first by whoever asks in order.
    """

    def __init__(
        self,
        broker: IBroker,
        clock: IReactorTime,
        name: str,
        begin: Callable[[IBrokerDelivery, bool], Deferred[IDelivery | None]],
        take_held: Callable[[], IBrokerDelivery | None],
        put_back: Callable[[IBrokerDelivery], None],
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._name = name
        self._begin = begin
        self._take_held = take_held
        self._put_back = put_back
        self._askers: list[_Asker] = []
        self._pausing = False

    def receive(self, most: int, in_order: bool) -> Deferred[Sequence[IDelivery]]:
        """See `IMessageQueue.receive`."""
        asker = _Asker(most, in_order)
        self._askers.append(asker)
        asker.served = self._serve(asker).addErrback(self._broke_down, asker)
        return asker.waiter

    def nudge(self) -> None:
        """Something is held that whoever has asked for longest, in order, may have."""
        for asker in self._askers:
            if asker.in_order and asker.pending is not None:
                asker.nudge()
                return

    def pause(self) -> None:
        """What was received could not be begun: wait a moment before the next look."""
        self._pausing = True

    def stop(self) -> Deferred[Any]:
        """Who waits is told. Fires once what is being begun for them was given back."""
        for asker in list(self._askers):
            asker.waiter.cancel()
        return DeferredList([asker.served for asker in self._askers if asker.served is not None])

    @deferred
    async def _serve(self, asker: _Asker) -> None:
        try:
            while not asker.gone:
                copies = await self._ask(asker)
                begun = await gatherResults([self._begin_or_keep(copy, asker) for copy in copies])
                lent = [each for each in begun if each is not None]
                if lent and not asker.gone:
                    asker.gone = True
                    asker.waiter.callback(lent)
                else:  # who asked has given up meanwhile, and nobody saw them
                    await DeferredList([unseen.release().addErrback(_not_heard) for unseen in lent])
        finally:
            self._askers.remove(asker)
            for copy in asker.kept:
                self._put_back(copy)

    @deferred
    async def _begin_or_keep(self, copy: IBrokerDelivery, asker: _Asker) -> IDelivery | None:
        try:
            return await self._begin(copy, asker.in_order)
        except NotDurable:
            self.pause()
            asker.kept.append(copy)
            return None

    async def _ask(self, asker: _Asker) -> Sequence[IBrokerDelivery]:
        """What there is to begin; nothing where it is worth looking anew."""
        held = self._take_held() if asker.in_order else None
        if held is not None:
            return [held]
        try:
            if self._pausing:
                asker.pending = deferLater(self._clock, RETRY_SECONDS)
                await asker.pending
                self._pausing = False
            kept, asker.kept = asker.kept, []
            kept = [copy for copy in kept if not copy.taken_back.called]
            if kept:
                return kept
            asker.pending = self._broker.receive(self._name, asker.most, in_order=asker.in_order)
            copies: Sequence[IBrokerDelivery] = await asker.pending
            return copies
        except CancelledError:
            if not (asker.nudged or asker.gone):
                raise  # the broker was stopped
            return []
        finally:
            asker.pending = None
            asker.nudged = False

    def _broke_down(self, failure: Failure, asker: _Asker) -> None:
        asker.gone = True
        if not asker.waiter.called:
            asker.waiter.errback(failure)


def _not_heard(failure: Failure) -> None:
    failure.trap(NotDurable, DeliveryClosed)
