# -*- test-case-name: tests.queue.test_contracts -*-
"""Idempotency keys in memory."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from msgspec.structs import replace
from twisted.internet.interfaces import IReactorTime

from openhqm.errors import IdempotencyConflict
from openhqm.messages import Acceptance, IdempotencyClaim
from openhqm.runtime.timer_queue import TimerQueue

LOOK_SECONDS = 3600.0
"""How long a key may stay at most after its lifetime was made shorter."""
Key = tuple[str, str]


@attrs.define
class _Taken:
    fingerprint: bytes
    acceptance: Acceptance
    expires: float


class Claims:
    """The keys that are taken, each until its lifetime is over."""

    def __init__(self, clock: IReactorTime, timers: TimerQueue) -> None:
        self._clock = clock
        self._timers = timers
        self._taken: dict[Key, _Taken] = {}

    def find(self, claim: IdempotencyClaim) -> Acceptance | None:
        """The acceptance of the request that has the key; None: it is free. `IdempotencyConflict`."""
        taken = self._taken.get((claim.scope, claim.key))
        if taken is None or taken.expires <= self._clock.seconds():
            return None
        if taken.fingerprint != claim.fingerprint:
            raise IdempotencyConflict(claim.key)
        return replace(taken.acceptance, replayed=True, follow_ups=())

    def take(self, claim: IdempotencyClaim, acceptance: Acceptance) -> None:
        """The key is that of this request."""
        key = (claim.scope, claim.key)
        taken = self._taken[key] = _Taken(claim.fingerprint, acceptance, self._clock.seconds() + claim.lifetime)
        self._look_later(key, taken)

    def let_expire(self, claims: Sequence[IdempotencyClaim]) -> None:
        """See `IResultStore.let_expire`."""
        for claim in claims:
            taken = self._taken.get((claim.scope, claim.key))
            if taken is not None and taken.fingerprint == claim.fingerprint:
                taken.expires = self._clock.seconds() + claim.lifetime

    def _look_later(self, key: Key, taken: _Taken) -> None:
        self._timers.at(min(taken.expires, self._clock.seconds() + LOOK_SECONDS), lambda: self._look(key, taken))

    def _look(self, key: Key, taken: _Taken) -> None:
        if self._taken.get(key) is not taken:
            return
        if taken.expires <= self._clock.seconds():
            del self._taken[key]
        else:
            self._look_later(key, taken)
