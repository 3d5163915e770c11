# -*- test-case-name: tests.bridges.test_bridge -*-
"""For how long a bridge recognises a message: as long as its broker may deliver it again by itself, and a while after.

A message that is not acknowledged comes again after any outage, of a week, too. So it is accepted under a claim that
outlives one, and the claim is made short once the acknowledgement is confirmed: what is kept does not grow with what
was read.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from openhqm.errors import NotDurable
from openhqm.interfaces import Acks, IBrokerDelivery, IResultStore
from openhqm.messages import IdempotencyClaim
from openhqm.runtime.deferreds import deferred

HELD_SECONDS = 90 * 86400.0
"""How long a message is recognised whose acknowledgement was never confirmed."""
TOGETHER = 100
"""So many claims are made short in one step."""
LATER_SECONDS = 1.0


class HeldClaims:
    """Those of one bridge in ``store``. Each lasts ``seconds`` more once its message is acknowledged; ``acks`` is what
    an acknowledgement says to the product.
    """

    _log = Logger()

    def __init__(self, store: IResultStore, clock: IReactorTime, acks: Acks, seconds: float) -> None:
        self._store = store
        self._clock = clock
        self._by_prefix = acks is Acks.PREFIX
        self._seconds = seconds
        self._held: dict[str, dict[IBrokerDelivery, IdempotencyClaim]] = {}
        self._over: list[IdempotencyClaim] = []
        self._timer: Any = None
        self._stopped = False

    def hold(self, delivery: IBrokerDelivery, claim: IdempotencyClaim) -> None:
        """The message was accepted under this claim, and is about to be acknowledged."""
        self._held.setdefault(_partition(delivery), {})[delivery] = claim

    def acknowledged(self, delivery: IBrokerDelivery) -> None:
        """The broker will not deliver it again, nor what the acknowledgement covers."""
        if not self._held:
            return
        for each in self._covered(delivery):
            claim = self._forget(each)
            if claim is not None:
                self._over.append(replace(claim, lifetime=self._seconds))
        if len(self._over) >= TOGETHER:
            self.flush()
        elif self._over and self._timer is None and not self._stopped:
            self._timer = self._clock.callLater(LATER_SECONDS, self.flush)

    def revoked(self, delivery: IBrokerDelivery) -> None:
        """It comes again, and its claim stays."""
        self._forget(delivery)

    def stop(self) -> Deferred[None]:
        """Make those short that are due. What is acknowledged from now on stays as long as it is. It does not fail."""
        self._stopped = True
        return self.flush()

    @deferred
    async def flush(self) -> None:
        """Make those short that are due. Where that fails they stay as long as they are. It does not fail."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        over, self._over = self._over, []
        if not over:
            return
        try:
            await self._store.let_expire(over)
        except NotDurable as error:
            self._log.debug("{count} messages are recognised for longer: {reason}", count=len(over), reason=error)

    def _covered(self, delivery: IBrokerDelivery) -> list[IBrokerDelivery]:
        position = delivery.position
        if not self._by_prefix or position is None:
            return [delivery]
        held = self._held.get(position.partition, {})
        return [each for each in held if each.position is not None and each.position.offset <= position.offset]

    def _forget(self, delivery: IBrokerDelivery) -> IdempotencyClaim | None:
        name = _partition(delivery)
        held = self._held.get(name, {})
        claim = held.pop(delivery, None)
        if not held:
            self._held.pop(name, None)
        return claim


def _partition(delivery: IBrokerDelivery) -> str:
    return "" if delivery.position is None else delivery.position.partition
