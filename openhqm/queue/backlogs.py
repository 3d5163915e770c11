# -*- test-case-name: tests.queue.test_shedding,tests.queue.test_tenant_backlogs -*-
"""How much waits in queues, for those that accept into them, without waiting for the answer.

It is asked of the queue while requests come for it, at most once a second, and counted on from there. A queue into
which no request comes costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import attrs
from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.interfaces import IMessageQueue
from openhqm.messages import Priority, Waiting
from openhqm.policy.queue_names import MOST_QUEUES

LOOK_SECONDS = 1.0
STALE_SECONDS = 10.0
"""What was known so long ago keeps nothing out."""


@attrs.define(eq=False)
class Look:
    """What is known of a queue: ``backlog`` at the time ``at``, and how many requests were accepted after that.

    ``waiting`` is how many requests wait, of all priorities. ``accepted_before`` is how many were accepted before the
    look that is ``under_way``. ``reason`` is why a request was kept out last, at ``shed_at``.
    """

    name: str

    backlog: Mapping[Priority, Waiting] | None = None
    at: float = float("-inf")
    asked_at: float = float("-inf")
    under_way: bool = False
    waiting: int = 0
    accepted: Counter[Priority] = attrs.field(factory=Counter)
    accepted_before: Counter[Priority] = attrs.field(factory=Counter)
    reason: str = ""
    shed_at: float = float("-inf")

    def is_known(self, now: float) -> bool:
        """Whether what is known is not too old."""
        return now - self.at <= STALE_SECONDS

    def accept(self, priority: Priority) -> None:
        """One more is accepted."""
        self.waiting += 1
        self.accepted[priority] += 1

    def looked(self, backlog: Mapping[Priority, Waiting], now: float) -> None:
        """So much waits."""
        self.under_way = False
        self.backlog, self.at = backlog, now
        self.accepted, self.accepted_before = self.accepted - self.accepted_before, Counter()
        self.waiting = sum(each.count for each in backlog.values()) + self.accepted.total()

    def ahead(self, priority: Priority) -> tuple[int, float | None]:
        """How many requests wait that go before a new one of ``priority``, and since when the first of them."""
        count, since = 0, None
        for each in Priority:  # high first
            waiting = (self.backlog or {}).get(each)
            count += self.accepted[each]
            if waiting is not None:
                count += waiting.count
                if waiting.since is not None and (since is None or waiting.since < since):
                    since = waiting.since
            if each is priority:
                break
        return count, since


class Backlogs:
    """What is known of the queues in ``queue``."""

    _log = Logger()

    def __init__(self, queue: IMessageQueue, clock: IReactorTime) -> None:
        self._queue = queue
        self._clock = clock
        self._looks: dict[str, Look] = {}

    def __iter__(self) -> Iterator[Look]:
        return iter(self._looks.values())

    def forget(self) -> None:
        """Nothing is known any more."""
        self._looks.clear()

    def of(self, name: str) -> Look:
        """What is known of the queue ``name``. Where that is a second old, it is asked for again."""
        look = self._looks.get(name)
        if look is None:
            if len(self._looks) >= MOST_QUEUES:  # of endpoints that were removed
                self._looks.clear()
            look = self._looks[name] = Look(name)
        self.refresh(look, self._clock.seconds())
        return look

    def refresh(self, look: Look, now: float) -> None:
        """Ask for a ``look`` again that is a second old."""
        if look.under_way or now - look.asked_at < LOOK_SECONDS:
            return
        look.under_way, look.asked_at = True, now
        look.accepted_before = look.accepted.copy()
        asked = self._queue.waiting(look.name).addTimeout(STALE_SECONDS, self._clock)
        asked.addCallback(self._looked, look).addErrback(self._not_looked, look)

    def _looked(self, backlog: Mapping[Priority, Waiting], look: Look) -> None:
        look.looked(backlog, self._clock.seconds())

    def _not_looked(self, failure: Failure, look: Look) -> None:
        look.under_way = False
        if not failure.check(NotDurable, TimeoutError):
            self._log.failure("asking a queue how much waits in it broke down", failure)
