# -*- test-case-name: tests.ingress.test_common_limits,tests.redis.test_rate_limits -*-
"""Rate limits that all processes keep together, over a store that they share, without a submission that waits for it.

Each process lets its callers take its share of what is left, and tells the store `TELL_SECONDS` later what they have
taken. The store answers with what is owed by all. What a process lets pass before it knows of the others is its share
at most, counts all the same, and is waited for afterwards. While the store is away, each process keeps to its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.ingress.rate_limiting import Limit
from openhqm.policy.rate_limits import MOST_CALLERS
from openhqm.queue.backend import CountTaken

TELL_SECONDS = 0.01
IDLE_SECONDS = 2.0
"""How often a process says that it is there."""
MOST_AT_ONCE = 1000

Key = tuple[Limit, bytes]


class CommonLimits:
    """Has ``limits`` hold for all processes together, with ``count``; None: each process keeps them for itself.

    What counts for an address, because the caller is not known, is kept by each process: there is no end of addresses.
    """

    _log = Logger()

    def __init__(self, count: CountTaken | None, clock: IReactorTime, limits: Sequence[Limit]) -> None:
        self._count = count
        self._clock = clock
        self._limits = limits if count is not None else ()
        self._taken: dict[Key, float] = {}
        self._next: Any = None
        self._soon = False
        """Whether the store will be told soon, or was asked and has not answered."""
        self._stopped = False
        self._processes = 1
        self._away = ""
        for each in self._limits:
            each.limits.on_taken = partial(self._note, each)

    @property
    def warnings(self) -> Sequence[str]:
        """What an operator should know."""
        if not self._away:
            return ()
        share = f"one in {self._processes} of what they allow" if self._processes > 1 else "all that they allow"
        return (f"rate limits are kept by each process for itself, which lets {share} pass: {self._away}",)

    def start(self) -> None:
        """Begin to tell the store."""
        if self._limits and not self._stopped:
            self._tell()

    def stop(self) -> None:
        """Tell it nothing more."""
        self._stopped = True
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _note(self, limit: Limit, caller: bytes, seconds: float) -> None:
        key = limit, caller
        if key not in self._taken and len(self._taken) >= MOST_CALLERS:
            return
        self._taken[key] = self._taken.get(key, 0.0) + seconds
        if not self._soon and not self._away:
            self._soon = True
            if self._next is not None:
                self._next.reset(TELL_SECONDS)

    def _tell(self) -> None:
        self._next, self._soon = None, True
        keys = list(self._taken)[:MOST_AT_ONCE]
        assert self._count is not None, "else there are no limits"
        asked = self._count([(_name(*key), self._taken.pop(key)) for key in keys])
        asked.addCallbacks(self._told, self._not_told, (keys,))
        asked.addErrback(
            lambda failure: self._log.failure("counting what was taken of rate limits broke down", failure)
        )
        asked.addBoth(self._again)

    def _again(self, _: object) -> None:
        if not self._stopped:
            self._soon = bool(self._taken) and not self._away
            self._next = self._clock.callLater(TELL_SECONDS if self._soon else IDLE_SECONDS, self._tell)

    def _told(self, answer: tuple[int, Sequence[float]], keys: Sequence[Key]) -> None:
        self._processes, owed = answer
        for limit in self._limits:
            limit.limits.processes = self._processes
        now = self._clock.seconds()
        for key, seconds in zip(keys, owed, strict=True):
            since = self._taken.get(key, 0.0)  # the store knows nothing of it yet
            limit, caller = key
            limit.limits.told(caller, seconds + since * self._processes, now)
        if self._away:
            self._log.info("all processes keep the rate limits together again")
            self._away = ""

    def _not_told(self, failure: Failure) -> None:
        """What was taken is not told again: it may have been counted, and each process keeps to its share now."""
        failure.trap(NotDurable)
        assert isinstance(failure.value, NotDurable), "see above"
        was_away, self._away = self._away, failure.value.reason
        if not was_away:
            self._log.warn("{text}", text=self.warnings[0])


def _name(limit: Limit, caller: bytes) -> bytes:
    """The name of a limit of one caller. What a token calls its owner may be long, and is no name for a store."""
    name = caller if limit.by_address is None else blake2b(caller, digest_size=16).hexdigest().encode()
    return b"%b %b" % (limit.name, name)
